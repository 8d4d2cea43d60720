module keymount/test/recordings/azkeys02

go 1.26.0

require github.com/Azure/azure-sdk-for-go/sdk/keyvault/azkeys v0.2.0

require (
	github.com/Azure/azure-sdk-for-go/sdk/azcore v0.21.0 // indirect
	github.com/Azure/azure-sdk-for-go/sdk/internal v0.8.3 // indirect
	github.com/Azure/azure-sdk-for-go/sdk/keyvault/internal v0.2.0 // indirect
	golang.org/x/net v0.0.0-20211015210444-4f30a5c0130f // indirect
	golang.org/x/text v0.3.7 // indirect
)
