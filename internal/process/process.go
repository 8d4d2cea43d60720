// Package process hardens the processes that hold secrets: no core dump, and no other process of the same user may read
// their memory. It imports nothing of the module. Call Harden once, first thing in main.
package process
