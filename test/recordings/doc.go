// Package recordings replays recorded traffic of the real services against the emulator, and feeds the recorded answers to the provider.
//
// The recordings are in the module cache: the Go modules that this one requires hold them under testdata/recordings. Nothing is copied
// from them. The package is test code; nothing imports it.
package recordings
