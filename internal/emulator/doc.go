// Package emulator is an Azure Key Vault and the Entra ID endpoints in front of it, as one http.Handler.
//
// It answers by the Host header, under the real names: <vault>.vault.azure.net, login.microsoftonline.com, and those of the
// other clouds. What it answers is written from recorded answers of the service and from its documents; docs/emulator.md says which is which. Tokens, client
// secrets, client assertions and rights are checked, not waved through, so that a test of a wrong identity can fail.
// Latency and faults are set while it runs, and every request is counted by kind.
//
// The package owns no socket and no certificate of its own: internal/emulator/front puts it on the network. It
// imports the standard library, a PKCS#12 writer and a YAML reader, and nothing of the product that is tested with it. A Server
// may be used from any number of goroutines.
package emulator
