package emulator_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azcertificates"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"keymount/internal/emulator"
	"keymount/internal/emulator/emulatortest"
)

const vaultURL = "https://myvault.vault.azure.net"

// The SDK's clients run with their default options but for the transport: challenge verification and instance discovery are on.

func clientOptions(e *emulatortest.Emulator) azcore.ClientOptions {
	return azcore.ClientOptions{Transport: &http.Client{Transport: e.Transport()}}
}

func secretCredential(t *testing.T, e *emulatortest.Emulator, id, secret string) azcore.TokenCredential {
	t.Helper()
	cred, err := azidentity.NewClientSecretCredential(emulatortest.Tenant, id, secret, &azidentity.ClientSecretCredentialOptions{ClientOptions: clientOptions(e)})
	if err != nil {
		t.Fatal(err)
	}
	return cred
}

func secretsClient(t *testing.T, e *emulatortest.Emulator, cred azcore.TokenCredential) *azsecrets.Client {
	t.Helper()
	c, err := azsecrets.NewClient(vaultURL, cred, &azsecrets.ClientOptions{ClientOptions: clientOptions(e)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func start(t *testing.T) *emulatortest.Emulator {
	return emulatortest.Start(t, emulatortest.DefaultSeed("myvault"))
}

func wantStatus(t *testing.T, err error, status int, contains string) {
	t.Helper()
	var re *azcore.ResponseError
	if !errors.As(err, &re) || re.StatusCode != status || !strings.Contains(err.Error(), contains) {
		t.Fatalf("got %v; want status %d and %q", err, status, contains)
	}
}

func TestSDKSecrets(t *testing.T) {
	e := start(t)
	ctx := t.Context()
	c := secretsClient(t, e, secretCredential(t, e, emulatortest.ClientID, emulatortest.ClientSecret))

	value, contentType := "s3cret <&>", "text/plain"
	set, err := c.SetSecret(ctx, "one", azsecrets.SetSecretParameters{Value: &value, ContentType: &contentType, Tags: map[string]*string{"a": &contentType}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.GetSecret(ctx, "ONE", "", nil)
	if err != nil || *got.Value != value || *got.ContentType != contentType || got.ID.Version() != set.ID.Version() || got.KID != nil || got.Managed != nil {
		t.Fatalf("got %+v, %v", got.Secret, err)
	}
	second := "second"
	if _, err := c.SetSecret(ctx, "one", azsecrets.SetSecretParameters{Value: &second}, nil); err != nil {
		t.Fatal(err)
	}
	if got, err = c.GetSecret(ctx, "one", set.ID.Version(), nil); err != nil || *got.Value != value {
		t.Fatalf("old version: %v, %v", got.Value, err)
	}
	no := false
	latest, err := c.GetSecret(ctx, "one", "", nil)
	if err != nil || *latest.Value != second {
		t.Fatalf("newest version: %v, %v", latest.Value, err)
	}
	if _, err := c.UpdateSecretProperties(ctx, "one", latest.ID.Version(), azsecrets.UpdateSecretPropertiesParameters{SecretAttributes: &azsecrets.SecretAttributes{Enabled: &no}}, nil); err != nil {
		t.Fatal(err)
	}
	_, err = c.GetSecret(ctx, "one", "", nil)
	wantStatus(t, err, 403, "Operation get is not allowed on a disabled secret.")
	_, err = c.GetSecret(ctx, "two", "", nil)
	wantStatus(t, err, 404, "SecretNotFound")
	_, err = c.GetSecret(ctx, "in_valid", "", nil)
	wantStatus(t, err, 400, "invalid name: in_valid")
}

func TestSDKPaging(t *testing.T) {
	e := start(t)
	ctx := t.Context()
	c := secretsClient(t, e, secretCredential(t, e, emulatortest.ClientID, emulatortest.ClientSecret))
	want := map[string]bool{}
	for i := range 60 {
		name := fmt.Sprintf("many-%02d", i)
		e.PutSecret("myvault", name, "v")
		want[name] = true
	}
	for range 30 {
		e.PutSecret("myvault", "many-00", "v")
	}
	var names []string
	pages := 0
	for pager := c.NewListSecretPropertiesPager(nil); pager.More(); pages++ {
		page, err := pager.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range page.Value {
			names = append(names, item.ID.Name())
		}
	}
	if len(names) != 60 || pages != 3 || !slices.IsSorted(names) {
		t.Fatalf("%d names on %d pages, want 60 sorted ones on 3", len(names), pages)
	}
	var versions []string
	for pager := c.NewListSecretPropertiesVersionsPager("many-00", nil); pager.More(); {
		page, err := pager.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range page.Value {
			versions = append(versions, item.ID.Version())
		}
	}
	if len(versions) != 31 || !slices.IsSorted(versions) {
		t.Fatalf("%d versions, want 31 in the order of their ids", len(versions))
	}
	for pager := c.NewListSecretPropertiesVersionsPager("absent", nil); pager.More(); {
		if page, err := pager.NextPage(ctx); err != nil || len(page.Value) != 0 {
			t.Fatalf("versions of a secret that is not there: %v, %v", page.Value, err)
		}
	}
	if n := e.Requests().Total(emulator.KindVersions); n != 3 {
		t.Errorf("%d requests for versions were counted, want 3", n)
	}
}

func TestSDKSoftDelete(t *testing.T) {
	e := start(t)
	ctx := t.Context()
	c := secretsClient(t, e, secretCredential(t, e, emulatortest.ClientID, emulatortest.ClientSecret))
	e.PutSecret("myvault", "gone", "v")
	deleted, err := c.DeleteSecret(ctx, "gone", nil)
	if err != nil || deleted.ScheduledPurgeDate.Sub(*deleted.DeletedDate) != 7*24*time.Hour {
		t.Fatalf("delete: %+v, %v", deleted, err)
	}
	value := "again"
	_, err = c.SetSecret(ctx, "gone", azsecrets.SetSecretParameters{Value: &value}, nil)
	wantStatus(t, err, 409, "ObjectIsDeletedButRecoverable")
	_, err = c.GetSecret(ctx, "gone", "", nil)
	wantStatus(t, err, 404, "SecretNotFound")
	if _, err := c.RecoverDeletedSecret(ctx, "gone", nil); err != nil {
		t.Fatal(err)
	}
	if got, err := c.GetSecret(ctx, "gone", "", nil); err != nil || *got.Value != "v" {
		t.Fatalf("after recovery: %v, %v", got.Value, err)
	}
	if _, err := c.DeleteSecret(ctx, "gone", nil); err != nil {
		t.Fatal(err)
	}
	page, err := c.NewListDeletedSecretPropertiesPager(nil).NextPage(ctx)
	if err != nil || len(page.Value) != 1 || page.Value[0].RecoveryID == nil {
		t.Fatalf("deleted list: %+v, %v", page.Value, err)
	}
	if _, err := c.PurgeDeletedSecret(ctx, "gone", nil); err != nil {
		t.Fatal(err)
	}
	_, err = c.GetDeletedSecret(ctx, "gone", nil)
	wantStatus(t, err, 404, "Deleted Secret not found: gone")
}

func TestSDKKeys(t *testing.T) {
	e := start(t)
	ctx := t.Context()
	c, err := azkeys.NewClient(vaultURL, secretCredential(t, e, emulatortest.ClientID, emulatortest.ClientSecret), &azkeys.ClientOptions{ClientOptions: clientOptions(e)})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name string
		kty  azkeys.KeyType
		crv  azkeys.CurveName
		x    int
	}{
		{"p256", azkeys.KeyTypeEC, azkeys.CurveNameP256, 32},
		{"p521", azkeys.KeyTypeEC, azkeys.CurveNameP521, 66},
		{"p256k", azkeys.KeyTypeEC, azkeys.CurveNameP256K, 32},
		{"p384hsm", azkeys.KeyTypeECHSM, azkeys.CurveNameP384, 48},
		{"rsa", azkeys.KeyTypeRSA, "", 0},
	} {
		params := azkeys.CreateKeyParameters{Kty: &row.kty}
		if row.crv != "" {
			params.Curve = &row.crv
		}
		if _, err := c.CreateKey(ctx, row.name, params, nil); err != nil {
			t.Fatalf("%s: %v", row.name, err)
		}
		got, err := c.GetKey(ctx, row.name, "", nil)
		if err != nil || *got.Key.Kty != row.kty || len(got.Key.X) != row.x || got.Key.D != nil {
			t.Errorf("%s: %+v, %v", row.name, got.Key, err)
		}
	}
	bad := azkeys.KeyType("invalid")
	_, err = c.CreateKey(ctx, "bad", azkeys.CreateKeyParameters{Kty: &bad}, nil)
	wantStatus(t, err, 400, "BadParameter")
	page, err := c.NewListKeyPropertiesPager(nil).NextPage(ctx)
	if err != nil || len(page.Value) != 5 {
		t.Fatalf("%d keys, %v", len(page.Value), err)
	}
}

func TestSDKCertificates(t *testing.T) {
	e := start(t)
	ctx := t.Context()
	cred := secretCredential(t, e, emulatortest.ClientID, emulatortest.ClientSecret)
	c, err := azcertificates.NewClient(vaultURL, cred, &azcertificates.ClientOptions{ClientOptions: clientOptions(e)})
	if err != nil {
		t.Fatal(err)
	}
	self, subject := "Self", "CN=made"
	kty, crv := azcertificates.KeyTypeEC, azcertificates.CurveNameP256
	if _, err := c.CreateCertificate(ctx, "made", azcertificates.CreateCertificateParameters{CertificatePolicy: &azcertificates.CertificatePolicy{
		IssuerParameters:          &azcertificates.IssuerParameters{Name: &self},
		KeyProperties:             &azcertificates.KeyProperties{KeyType: &kty, Curve: &crv},
		X509CertificateProperties: &azcertificates.X509CertificateProperties{Subject: &subject},
	}}, nil); err != nil {
		t.Fatal(err)
	}
	op, err := c.GetCertificateOperation(ctx, "made", nil)
	if err != nil || *op.Status != "completed" || !strings.HasSuffix(*op.Target, "/certificates/made") {
		t.Fatalf("operation: %+v, %v", op.CertificateOperation, err)
	}
	cert, err := c.GetCertificate(ctx, "made", "", nil)
	if err != nil || len(cert.CER) == 0 || cert.Policy == nil || cert.SID.Version() != cert.ID.Version() {
		t.Fatalf("certificate: %+v, %v", cert.Certificate, err)
	}
	if byVersion, err := c.GetCertificate(ctx, "made", cert.ID.Version(), nil); err != nil || byVersion.Policy != nil {
		t.Errorf("by version: policy %v, %v; want none", byVersion.Policy, err)
	}
	secret, err := secretsClient(t, e, cred).GetSecret(ctx, "made", cert.ID.Version(), nil)
	if err != nil || *secret.ContentType != "application/x-pkcs12" || !*secret.Managed || secret.KID.Version() != cert.ID.Version() {
		t.Fatalf("secret: %+v, %v", secret.Secret, err)
	}
	if _, err := c.ImportCertificate(ctx, "copied", azcertificates.ImportCertificateParameters{Base64EncodedCertificate: secret.Value}, nil); err != nil {
		t.Fatal(err)
	}
	copied, err := secretsClient(t, e, cred).GetSecret(ctx, "copied", "", nil)
	if err != nil || *copied.Value != *secret.Value {
		t.Errorf("an import without password is not stored as it came: %v", err)
	}
	if _, err := c.DeleteCertificate(ctx, "made", nil); err != nil {
		t.Fatal(err)
	}
	_, err = secretsClient(t, e, cred).GetSecret(ctx, "made", "", nil)
	wantStatus(t, err, 404, "SecretNotFound")
}

func TestSDKWorkloadIdentity(t *testing.T) {
	e := start(t)
	e.PutSecret("myvault", "one", "v")
	file := filepath.Join(t.TempDir(), "token")
	read := func(ns string, aud string, life time.Duration) error {
		token := e.ServiceAccountToken(ns, "reader", "pod-1", "uid-1", aud, life)
		if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		cred, err := azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{ClientOptions: clientOptions(e),
			TenantID: emulatortest.Tenant, ClientID: emulatortest.ClientID, TokenFilePath: file})
		if err != nil {
			t.Fatal(err)
		}
		_, err = secretsClient(t, e, cred).GetSecret(context.Background(), "one", "", nil)
		return err
	}
	if err := read("app", emulatortest.Audience, time.Hour); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		ns, aud string
		life    time.Duration
		want    string
	}{
		{"other", emulatortest.Audience, time.Hour, "AADSTS700213"},
		{"app", "api://other", time.Hour, "AADSTS700212"},
		{"app", emulatortest.Audience, -time.Hour, "AADSTS700024"},
	} {
		if err := read(row.ns, row.aud, row.life); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s, %s, %s: got %v, want %s", row.ns, row.aud, row.life, err, row.want)
		}
	}
}

func TestSDKWrongIdentity(t *testing.T) {
	e := start(t)
	e.PutSecret("myvault", "one", "v")
	for _, row := range []struct{ id, secret, want string }{
		{emulatortest.ClientID, "wrong", "AADSTS7000215"},
		{"33333333-3333-4333-8333-333333333333", emulatortest.ClientSecret, "AADSTS700016"},
	} {
		_, err := secretsClient(t, e, secretCredential(t, e, row.id, row.secret)).GetSecret(t.Context(), "one", "", nil)
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("got %v, want %s", err, row.want)
		}
	}
	if n := e.Requests().Total(emulator.KindSecretGet); n != 0 {
		t.Errorf("%d reads with a token, want none", n)
	}
}
