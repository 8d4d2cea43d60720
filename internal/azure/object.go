package azure

import (
	"context"
	"fmt"
	"strings"
	"time"

	"keymount/internal/azure/encode"
	"keymount/internal/azure/params"
	"keymount/internal/azure/vault"
	"keymount/internal/provider"
)

// history returns the versions that a class asks for by objectVersionHistory: the enabled ones, newest first, from the
// pinned one on if one is pinned, and as many as it says. (Upstream returned one more, and nothing at all for a version or
// an object that does not exist.)
func (m *mount) history(ctx context.Context, o *params.Object) ([]string, error) {
	if err := m.room(ctx, o); err != nil {
		return nil, err
	}
	start := time.Now()
	all, err := m.vault.Versions(ctx, m.who, m.spec.VaultURL(), vault.Kind(o.Kind), o.Name)
	m.cfg.Observe(Read{string(o.Kind), err, time.Since(start)})
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, m.failure(o, provider.NotFound, "it does not exist", "correct objectName and objectType; a deleted object may be recoverable")
	}
	var versions []string
	started := o.Version == ""
	for _, v := range all {
		pinned := strings.EqualFold(v.Version, o.Version)
		if pinned && !v.Enabled {
			return nil, m.failure(o, provider.Denied, "version "+o.Version+" is disabled", "enable this version, or name an enabled one in objectVersion")
		}
		started = started || pinned
		if started && v.Enabled && len(versions) < o.History {
			versions = append(versions, v.Version)
		}
	}
	switch {
	case !started:
		return nil, m.failure(o, provider.NotFound, "it has no version "+o.Version, "correct objectVersion, or leave it empty for the newest")
	case len(versions) == 0:
		return nil, m.failure(o, provider.Denied, "all of its versions are disabled", "enable a version")
	}
	return versions, nil
}

// readVersion reads one version of an object, "" for the newest, and turns it into files.
func (m *mount) readVersion(ctx context.Context, o *params.Object, version string, index int) (out part, err error) {
	out.object = o
	if err := m.room(ctx, o); err != nil {
		return out, err
	}
	start := time.Now()
	defer func() { m.cfg.Observe(Read{string(o.Kind), err, time.Since(start)}) }()
	var files encode.Files
	var wrong error // with the object, not with reading it
	switch o.Kind {
	case params.Secret:
		s, err := m.vault.Secret(ctx, m.who, m.spec.VaultURL(), o.Name, version)
		if err != nil {
			return out, err
		}
		out.version = s.Version
		files, wrong = m.secret(o, s)
	case params.Key:
		k, err := m.vault.Key(ctx, m.who, m.spec.VaultURL(), o.Name, version)
		if err != nil {
			return out, err
		}
		out.version = k.Version
		files.Whole, wrong = encode.JWK{Type: k.Type, Curve: k.Curve, N: k.N, E: k.E, X: k.X, Y: k.Y}.PublicKey()
	case params.Certificate:
		c, err := m.vault.Certificate(ctx, m.who, m.spec.VaultURL(), o.Name, version)
		if err != nil {
			return out, err
		}
		out.version = c.Version
		files.Whole, wrong = encode.Certificate(c.DER)
	}
	if wrong != nil {
		return out, m.failure(o, provider.Invalid, wrong.Error(), "compare the object in the vault with objectType, objectFormat and objectEncoding")
	}
	for _, w := range files.Warnings {
		out.warnings = append(out.warnings, fmt.Sprintf("%s of vault %s: %s", o.IDOf(index), m.spec.Vault, w))
	}
	m.add(&out, o.PathOf(index), o.IDOf(index), files)
	return out, nil
}

func (m *mount) secret(o *params.Object, s *vault.Secret) (encode.Files, error) {
	opt := encode.Options{
		KeepPFX:    o.Format == params.PFX,
		OrderChain: m.cfg.ConstructPEMChain,
		Split:      m.cfg.WriteCertAndKeyInSeparateFiles,
		Budget:     m.work,
	}
	switch o.Encoding {
	case params.Hex:
		opt.Encoding = encode.Hex
	case params.Base64:
		opt.Encoding = encode.Base64
	}
	return encode.Secret{Value: s.Value, ContentType: s.ContentType, OfCertificate: s.KeyID != ""}.Do(opt)
}

// add puts the files of one version into the part, those of a split before the whole one, as upstream does.
func (m *mount) add(out *part, path, id string, files encode.Files) {
	mode := m.mode.Perm()
	if out.object.HasMode {
		mode = out.object.Mode
	}
	add := func(path string, contents []byte) {
		out.files = append(out.files, provider.File{Path: path, Mode: mode, Contents: contents, Object: id})
		if m.size.Add(int64(len(contents))) > maxBundle {
			m.stop(errTooLarge)
		}
	}
	if files.Certificates != nil {
		add(path+".crt", files.Certificates)
	}
	if files.Key != nil {
		add(path+".key", files.Key)
	}
	add(path, files.Whole)
}

// failure names the object and the vault, as the errors of the vault client do.
func (m *mount) failure(o *params.Object, kind provider.Kind, what, remedy string) *provider.Error {
	return &provider.Error{
		Kind:    kind,
		Object:  o.ID(),
		Message: fmt.Sprintf("%s %q of vault %s: %s", o.Kind, o.Name, strings.TrimPrefix(m.spec.VaultURL(), "https://"), what),
		Remedy:  remedy,
	}
}
