package params

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// Kind is what an object is in the vault.
type Kind string

const (
	Secret      Kind = "secret"
	Key         Kind = "key"
	Certificate Kind = "cert"
)

// Format is the form of a certificate with its key.
type Format string

const (
	PEM Format = "pem"
	PFX Format = "pfx"
)

// Encoding says how the bytes of a file are written in the secret.
type Encoding string

const (
	UTF8   Encoding = "utf-8"
	Hex    Encoding = "hex"
	Base64 Encoding = "base64"
)

// An Object is one entry of the class's array, checked and with its defaults.
type Object struct {
	// Index is the entry's place in the array.
	Index int
	Kind  Kind
	Name  string
	// Version is "" for the newest one.
	Version string
	// History is how many versions are wanted, each in a file of its own; 0 means one, without an index.
	History  int
	Format   Format
	Encoding Encoding
	// Path is the file's path below the volume's root, cleaned and with forward slashes; with History that of the folder.
	Path string
	// Mode is the file's mode where HasMode is set; else it is the request's default.
	Mode    fs.FileMode
	HasMode bool
}

// ID returns the id under which the object's versions are reported: secret/db-password.
func (o *Object) ID() string { return string(o.Kind) + "/" + o.Name }

// Field returns the path of the entry in the class, for messages.
func (o *Object) Field() string { return entryPath(o.Index) }

// A rawObject is an entry as written. Its types are upstream's, so that the same YAML is read alike: text fields take
// unquoted numbers as they stand, and the history takes only a number.
type rawObject struct {
	ObjectName           string `yaml:"objectName"`
	ObjectAlias          string `yaml:"objectAlias"`
	ObjectVersion        string `yaml:"objectVersion"`
	ObjectVersionHistory int32  `yaml:"objectVersionHistory"`
	ObjectType           string `yaml:"objectType"`
	ObjectFormat         string `yaml:"objectFormat"`
	ObjectEncoding       string `yaml:"objectEncoding"`
	FilePermission       string `yaml:"filePermission"`

	slips map[string]string // how the entry misspells a field, by the field
}

func (r *rawObject) trim() {
	for _, field := range []*string{&r.ObjectName, &r.ObjectAlias, &r.ObjectVersion, &r.ObjectType, &r.ObjectFormat,
		&r.ObjectEncoding, &r.FilePermission} {
		*field = strings.TrimSpace(*field)
	}
}

func objectFields() []string {
	return []string{"objectName", "objectAlias", "objectVersion", "objectVersionHistory", "objectType", "objectFormat",
		"objectEncoding", "filePermission"}
}

// An entry checks one rawObject.
type entry struct {
	*parser
	raw   *rawObject
	index int
}

func (e *entry) refuse(field, remedy, format string, args ...any) {
	e.problem(entryPath(e.index)+"."+field, remedy, "failed to get objectType:%s, objectName:%s, objectVersion:%s: %s",
		show(e.raw.ObjectType), show(e.raw.ObjectName), show(e.raw.ObjectVersion), fmt.Sprintf(format, args...))
}

// object checks every field, so that one pass names everything that is wrong with the entry.
func (e *entry) object() Object {
	o := Object{
		Index:    e.index,
		Kind:     e.kind(),
		Name:     e.name(),
		Version:  e.version(),
		History:  e.history(),
		Format:   e.format(),
		Encoding: e.encoding(),
		Path:     e.filePath(),
	}
	o.Mode, o.HasMode = e.mode()
	return o
}

func (e *entry) kind() Kind {
	switch k := Kind(e.raw.ObjectType); k {
	case Secret, Key, Certificate:
		return k
	}
	remedy := "write secret, key or cert, in lower case"
	switch {
	case strings.EqualFold(e.raw.ObjectType, "certificate"):
		remedy = "write cert"
	case e.raw.ObjectType == "":
		remedy = e.orSlip("objectType", remedy)
	}
	e.refuse("objectType", remedy, "Invalid vaultObjectTypes. Should be secret, key, or cert")
	return ""
}

// orSlip is the remedy for a field that is missing, as the parser's is for a parameter.
func (e *entry) orSlip(missing, remedy string) string {
	if slip, ok := e.raw.slips[missing]; ok {
		return "write " + missing + " where the class says " + show(slip)
	}
	return remedy
}

// name holds the name to Key Vault's own rule, so that a slip is found before the vault is asked.
func (e *entry) name() string {
	n := e.raw.ObjectName
	if n == "" {
		e.refuse("objectName", e.orSlip("objectName", "name the object in the vault"), "file name must not be empty")
	} else if len(n) > 127 || !onlyLettersDigitsAnd(n, "-") {
		e.refuse("objectName", "give the object's name without vault, type and version",
			"%q is not a name in Key Vault: 1 to 127 letters, digits and dashes", show(n))
	}
	return n
}

// version accepts what versions in Key Vault are, 32 hexadecimal digits that the service makes. "latest" is the newest, with
// and without history.
func (e *entry) version() string {
	v := e.raw.ObjectVersion
	if v == "" || v == "latest" {
		return ""
	}
	if len(v) != 32 || strings.Trim(v, "0123456789abcdefABCDEF") != "" {
		e.refuse("objectVersion", `leave it empty or write "latest" for the newest version`,
			"%q is not a version in Key Vault: 32 hexadecimal digits", show(v))
	}
	return v
}

func (e *entry) history() int {
	h := int(e.raw.ObjectVersionHistory)
	if h <= 1 {
		return 0
	}
	if h > maxHistory {
		e.refuse("objectVersionHistory", fmt.Sprintf("ask for %d versions at most", maxHistory), "%d versions are too many", h)
		return 0
	}
	return h
}

func (e *entry) format() Format {
	f := Format(strings.ToLower(e.raw.ObjectFormat))
	switch f {
	case "":
		return PEM
	case PEM:
	case PFX:
		if e.raw.ObjectType != string(Secret) {
			e.refuse("objectFormat", "set objectType to secret to get the certificate with its key as PFX",
				"PFX format only supported for objectType: secret")
		}
	default:
		e.refuse("objectFormat", "write pem or pfx", "invalid objectFormat: %s, should be PEM or PFX", show(e.raw.ObjectFormat))
	}
	return f
}

func (e *entry) encoding() Encoding {
	c := Encoding(strings.ToLower(e.raw.ObjectEncoding))
	switch c {
	case "":
		return UTF8
	case UTF8, Hex, Base64:
		if e.raw.ObjectType != string(Secret) {
			e.refuse("objectEncoding", "remove objectEncoding from this entry", "objectEncoding only supported for objectType: secret")
		}
	default:
		e.refuse("objectEncoding", "write utf-8, hex or base64",
			"invalid objectEncoding: %s, should be hex, base64 or utf-8", show(e.raw.ObjectEncoding))
	}
	return c
}

// mode reads octal digits. Upstream drops the error and mounts with mode 0000, or with more than permission bits.
func (e *entry) mode() (fs.FileMode, bool) {
	text := e.raw.FilePermission
	if text == "" {
		return 0, false
	}
	m, err := strconv.ParseInt(text, 8, 32)
	if err != nil || m < 0 || m > 0o777 {
		e.refuse("filePermission", "write the mode in octal, such as 0644",
			"%q is not a file permission: octal digits from 0000 to 0777", show(text))
		return 0, false
	}
	return fs.FileMode(m), true
}

func versionPath(folder string, index int) string { return folder + "/" + strconv.Itoa(index) }

// PathOf returns the path of the object's file for the version with the given index (0 is the first).
func (o *Object) PathOf(index int) string {
	if o.History == 0 {
		return o.Path
	}
	return versionPath(o.Path, index)
}

// IDOf returns the id of the object's version with the given index: secret/db-password/0 where there is a history.
func (o *Object) IDOf(index int) string {
	if o.History == 0 {
		return o.ID()
	}
	return versionPath(o.ID(), index)
}
