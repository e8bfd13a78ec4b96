// Package journal is the durable record of the lease changes that the holder of a
// subnet makes: a map from address to lease that survives the loss of power, kept
// as an append-only file.
//
// Its promises:
//
//   - A record is on disk when Append has returned nil. Many appenders share one fsync.
//   - What one Append was given is there after a crash as a whole or not at all.
//   - A write that a crash tore off is cut off at the next Open; nothing that was
//     acknowledged is in it. Damage anywhere before the last write is ErrCorrupt,
//     never skipped. (The damaged last write of a process that was killed cannot be told
//     from a torn one. Its loss is reported, and the holder makes up for it from the
//     kernel and the replica. Close seals the last write.)
//   - After a failed write or fsync nothing is acknowledged any more until Compact
//     has written a new file: a second fsync after a failed one proves nothing.
//
// One process at a time may have a journal open; the lock of the data directory
// sees to that. A Journal is safe for concurrent use.
package journal
