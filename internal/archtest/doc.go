// Package archtest holds the structure of the project against the import map
// that its design promises. It has tests only.
package archtest
