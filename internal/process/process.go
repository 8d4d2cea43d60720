// Package process is the life of the processes that hold secrets, from hardening (no core dump, and no other process of the
// same user may read their memory) to the exit code. It imports nothing of the module. Call Main, or Harden, once, first
// thing in main.
package process
