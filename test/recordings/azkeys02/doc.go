// Package azkeys02 pins a version of azkeys that holds recordings which later ones do not: refused requests. It is a module of its own, since one
// module cannot require two versions of another. It holds no code and nothing imports it.
package azkeys02

import _ "github.com/Azure/azure-sdk-for-go/sdk/keyvault/azkeys" // the recordings are in its module
