// Package v1alpha1 is the provider protocol: service.proto and the code generated from it. It holds no logic and imports
// nothing else of the module; internal/provider/plugin is its only user.
package v1alpha1

//go:generate sh -c "cd ../../../tools && go run ./protogen ../api/provider/v1alpha1/service.proto"
