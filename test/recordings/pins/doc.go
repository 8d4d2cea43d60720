// Package pins names the versions of the SDK that hold recordings; later ones hold none. It is a module of its own, since the product needs
// newer versions of the same modules. It holds no code and nothing imports it.
package pins

import (
	_ "github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	_ "github.com/Azure/azure-sdk-for-go/sdk/keyvault/azcertificates"
	_ "github.com/Azure/azure-sdk-for-go/sdk/keyvault/azkeys"
	_ "github.com/Azure/azure-sdk-for-go/sdk/keyvault/azsecrets"
)
