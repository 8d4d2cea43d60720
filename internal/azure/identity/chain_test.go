package identity_test

import (
	"strings"
	"testing"

	"keymount/internal/azure/identity"
	"keymount/internal/emulator"
	"keymount/internal/emulator/emulatortest"
	"keymount/internal/provider"
)

// The SDK's errors repeat whole answers. For the developer's sign-in its text is what helps, but not where the answer was to
// be a token.
func TestErrorsOfTheChainHoldNoToken(t *testing.T) {
	const token = "hunter2-the-token"
	w := newWorld(t)
	for name, value := range map[string]string{"AZURE_TENANT_ID": emulatortest.Tenant, "AZURE_CLIENT_ID": emulatortest.ClientID,
		"AZURE_CLIENT_SECRET": emulatortest.ClientSecret, "AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential"} {
		t.Setenv(name, value)
	}
	for _, body := range []string{
		`{"access_token":"` + token + `","expires_in":"soon","token_type":"Bearer"}`,
		`{"access_token":["` + token + `"],"expires_in":3599}`,
		`{"access_token":"` + token + `"`,
		`{"access_token":"` + token + `","error":"odd"}`,
	} {
		clear := w.SetFault(emulator.Fault{Do: emulator.ActBody, Kind: emulator.GroupToken, Body: body})
		cred, err := identity.NewDefaultChain(identity.Config{Transport: w.Transport()}).Credential(t.Context(), nil, principalSpec())
		if err != nil {
			t.Fatal(err)
		}
		_, err = cred.Token(t.Context())
		clear()
		if err == nil || strings.Contains(err.Error(), token) || provider.KindOf(err) != provider.Internal {
			t.Errorf("%s gives kind %v: %v", body, provider.KindOf(err), err)
		}
	}
	defer w.SetFault(emulator.Fault{Do: emulator.ActStatus, Kind: emulator.GroupToken, Status: 401,
		Body: `{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided.","error_codes":[7000215]}`})()
	cred, err := identity.NewDefaultChain(identity.Config{Transport: w.Transport()}).Credential(t.Context(), nil, principalSpec())
	if err != nil {
		t.Fatal(err)
	}
	if _, err = cred.Token(t.Context()); err == nil || !strings.Contains(err.Error(), "AADSTS7000215: Invalid client secret") {
		t.Errorf("a refusal gives %v", err)
	}
}

// The chain asks whatever answers under the metadata service's address too, which on other clouds is no part of Azure.
func TestChainAnsweredBySomethingElse(t *testing.T) {
	w := newWorld(t)
	for name, value := range map[string]string{"AZURE_TENANT_ID": emulatortest.Tenant, "AZURE_CLIENT_ID": emulatortest.ClientID,
		"AZURE_CLIENT_SECRET": emulatortest.ClientSecret, "AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential"} {
		t.Setenv(name, value)
	}
	defer w.SetFault(emulator.Fault{Do: emulator.ActStatus, Kind: emulator.GroupToken, Status: 403, Body: "<html>not here"})()
	cred, err := identity.NewDefaultChain(identity.Config{Transport: w.Transport()}).Credential(t.Context(), nil, principalSpec())
	if err != nil {
		t.Fatal(err)
	}
	_, err = cred.Token(t.Context())
	if provider.KindOf(err) != provider.Denied || !strings.Contains(err.Error(), "HTTP 403 from login.microsoftonline.com") ||
		!strings.Contains(err.Error(), "az login") {
		t.Errorf("kind %v: %v", provider.KindOf(err), err)
	}
}
