// Package sbom says what an image is made of, as an SPDX 2.3 document: the program, the Go modules in it with their
// checksums, the Go release and the bundle of certification authorities. It reads what go build recorded in the program, so
// it lists what is linked and not what go.mod requires. It asks no network. Its functions may be called concurrently.
package sbom

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"
)

// MediaType is that of the document, as a file and as an artefact of a registry.
const MediaType = "application/spdx+json"

// An Image is what there is to say about one image of one platform.
type Image struct {
	Name     string // with registry and repository, without the tag
	Version  string
	Platform string
	Created  time.Time // of the image; the document claims no later one, so that it is the same whenever it is made
	Program  string    // the program's file on this machine
	Bundle   Module    // where the certification authorities come from
}

// A Module is one version of a Go module; Sum is its line in go.sum ("h1:...").
type Module struct{ Path, Version, Sum string }

const (
	none      = "NOASSERTION"
	imageID   = common.ElementID("Image")
	programID = common.ElementID("Program")
	goID      = common.ElementID("Go")
	bundleID  = common.ElementID("CertificationAuthorities")
)

// SPDX returns the document, indented JSON.
func SPDX(img Image) ([]byte, error) {
	info, err := buildinfo.ReadFile(img.Program)
	if err != nil {
		return nil, fmt.Errorf("reading what %s was built from: %w", img.Program, err)
	}
	sum, err := fileSum(img.Program)
	if err != nil {
		return nil, fmt.Errorf("hashing the program: %w", err)
	}
	doc := document(img, sum)
	program := goPackage(programID, Module{Path: info.Path, Version: img.Version})
	program.PrimaryPackagePurpose, program.PackageLicenseDeclared = "APPLICATION", "Apache-2.0"
	program.PackageChecksums = []common.Checksum{{Algorithm: common.SHA256, Value: sum}}
	add(doc, program, imageID, common.TypeRelationshipContains)
	stdlib := goPackage(goID, Module{Path: "stdlib", Version: strings.TrimPrefix(info.GoVersion, "go")})
	stdlib.PackageSourceInfo, stdlib.PackageLicenseDeclared = "compiled by "+info.GoVersion, "BSD-3-Clause"
	add(doc, stdlib, programID, common.TypeRelationshipDependsOn)
	for i, m := range linked(info) {
		p := goPackage(common.ElementID(fmt.Sprintf("Module-%03d", i+1)), m)
		if err := setSum(p, m); err != nil {
			return nil, err
		}
		add(doc, p, programID, common.TypeRelationshipDependsOn)
	}
	authorities := goPackage(bundleID, img.Bundle)
	authorities.PackageComment = "the certification authorities of /etc/ssl/certs/ca-certificates.crt; no code of it is in the image. "
	if err := setSum(authorities, img.Bundle); err != nil {
		return nil, err
	}
	add(doc, authorities, imageID, common.TypeRelationshipContains)
	b, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing the SPDX document of %s: %w", img.Name, err)
	}
	return append(b, '\n'), nil
}

// linked are the modules in the program but its own; a replaced one is named by what replaced it.
func linked(info *debug.BuildInfo) []Module {
	var all []Module
	for _, dep := range info.Deps {
		if dep.Replace != nil {
			dep = dep.Replace
		}
		all = append(all, Module{Path: dep.Path, Version: dep.Version, Sum: dep.Sum})
	}
	return all
}

// document has the image as its only package. The namespace must be unique to the document: it holds the program's hash.
func document(img Image, programSum string) *v2_3.Document {
	doc := &v2_3.Document{
		SPDXVersion:       v2_3.Version,
		DataLicense:       v2_3.DataLicense,
		SPDXIdentifier:    "DOCUMENT",
		DocumentName:      img.Name + ":" + img.Version + " " + img.Platform,
		DocumentNamespace: "https://keymount.dev/spdx/" + img.Name + "/" + img.Version + "/" + img.Platform + "/" + programSum,
		CreationInfo: &v2_3.CreationInfo{
			Creators: []common.Creator{{CreatorType: "Tool", Creator: "keymount-images"}},
			Created:  img.Created.UTC().Format(time.RFC3339),
		},
	}
	add(doc, &v2_3.Package{
		PackageName:             img.Name,
		PackageSPDXIdentifier:   imageID,
		PackageVersion:          img.Version,
		PackageDownloadLocation: none,
		PrimaryPackagePurpose:   "CONTAINER",
		PackageLicenseDeclared:  "Apache-2.0",
		PackageLicenseConcluded: none,
		PackageCopyrightText:    none,
	}, "DOCUMENT", common.TypeRelationshipDescribe)
	return doc
}

func add(doc *v2_3.Document, p *v2_3.Package, from common.ElementID, how string) {
	doc.Packages = append(doc.Packages, p)
	doc.Relationships = append(doc.Relationships, &v2_3.Relationship{
		RefA:         common.MakeDocElementID("", string(from)),
		RefB:         common.MakeDocElementID("", string(p.PackageSPDXIdentifier)),
		Relationship: how,
	})
}

func goPackage(id common.ElementID, m Module) *v2_3.Package {
	return &v2_3.Package{
		PackageName:             m.Path,
		PackageSPDXIdentifier:   id,
		PackageVersion:          m.Version,
		PackageDownloadLocation: none,
		PrimaryPackagePurpose:   "LIBRARY",
		PackageLicenseConcluded: none,
		PackageLicenseDeclared:  none,
		PackageCopyrightText:    none,
		// In the letters that go.mod has: scanners look modules up by exactly these.
		PackageExternalReferences: []*v2_3.PackageExternalReference{{
			Category: common.CategoryPackageManager,
			RefType:  common.TypePackageManagerPURL,
			Locator:  "pkg:golang/" + m.Path + "@" + strings.ReplaceAll(m.Version, "+", "%2B"),
		}},
	}
}

// setSum gives the package the checksum of go.sum. It is SHA-256 over the list of the module's files with their hashes, as
// other makers of such documents give it, and not the hash of one file: the comment says so.
func setSum(p *v2_3.Package, m Module) error {
	b64, ok := strings.CutPrefix(m.Sum, "h1:")
	raw, err := base64.StdEncoding.DecodeString(b64)
	if err == nil && (!ok || len(raw) != sha256.Size) {
		err = errors.New("it must be h1: and 32 bytes in base64")
	}
	if err != nil {
		return fmt.Errorf("reading the checksum %q of %s %s (is it replaced by a folder?): %w", m.Sum, m.Path, m.Version, err)
	}
	p.PackageChecksums = []common.Checksum{{Algorithm: common.SHA256, Value: hex.EncodeToString(raw)}}
	p.PackageComment += "The checksum is that of go.sum, " + m.Sum + ", over the list of the module's files."
	return nil
}

func fileSum(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
