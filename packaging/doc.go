// Package packaging holds what makes the Debian package, and its tests: the
// package is installed, upgraded, removed and purged on a machine with systemd as
// PID 1 that bed.sh boots for it and throws away.
package packaging
