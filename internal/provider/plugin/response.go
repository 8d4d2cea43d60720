package plugin

import (
	"fmt"
	"io/fs"

	"keymount/api/provider/v1alpha1"
	"keymount/internal/provider"
)

// A CodeError is what a provider wrote into the error field of its answer. It is the Cause of the *provider.Error, for
// whoever wants the code itself.
type CodeError struct {
	Code string // in the provider's own words: not a closed set, and hostile
}

func (e *CodeError) Error() string { return "provider error code " + e.Code }

// ErrorType is the value of upstream's metric label error_type. Whoever makes labels of it bounds their number.
func (e *CodeError) ErrorType() string { return e.Code }

// encodeBundle puts a bundle into the protocol's form.
func encodeBundle(b *provider.Bundle) *v1alpha1.MountResponse {
	out := &v1alpha1.MountResponse{}
	for _, v := range b.Versions {
		out.ObjectVersion = append(out.ObjectVersion, &v1alpha1.ObjectVersion{Id: v.ID, Version: v.Version})
	}
	for _, f := range b.Files {
		out.Files = append(out.Files, &v1alpha1.File{Path: f.Path, Mode: int32(f.Mode.Perm()), Contents: f.Contents})
	}
	return out
}

// decodeBundle takes a bundle out of the protocol's form and refuses what no provider may answer. Rules for paths are
// internal/volume's; here they are only bounded.
//
// An answer with versions but without files is that of a provider that writes into the target itself. Upstream refuses an
// answer without versions as "missing object versions", so no provider in use gives one that has files, and it stays an
// error; one with neither is a class that lists no objects, whose volume is empty. Neither of the two removes what a
// provider wrote: the volume of the first is not touched at all, and writing an empty content to the second takes away
// what was written from answers with files, and leaves every other name alone.
func decodeBundle(in *v1alpha1.MountResponse) (*provider.Bundle, error) {
	if in.GetError().GetCode() != "" {
		code := clean(in.GetError().GetCode(), maxCodeBytes)
		return nil, &provider.Error{Message: "mount request failed with provider error code " + code, Cause: &CodeError{code}}
	}
	files, versions := in.GetFiles(), in.GetObjectVersion()
	switch {
	case len(files) > maxFiles || len(versions) > maxFiles:
		return nil, malformed("the provider answered with %d files and %d object versions, more than %d",
			len(files), len(versions), maxFiles)
	case len(files) > 0 && len(versions) == 0:
		return nil, malformed("missing object versions: the provider answered with files but names no object")
	}
	out := &provider.Bundle{SelfWritten: len(files) == 0 && len(versions) > 0}
	for _, v := range versions {
		if len(v.GetId()) > maxVersionBytes || len(v.GetVersion()) > maxVersionBytes {
			return nil, malformed("the provider named an object or version of more than %d bytes", maxVersionBytes)
		}
		out.Versions = append(out.Versions, provider.ObjectVersion{ID: v.GetId(), Version: v.GetVersion()})
	}
	more := 0
	for _, f := range files {
		if len(f.GetPath()) > maxPathBytes {
			return nil, malformed("the provider named a file of more than %d bytes", maxPathBytes)
		}
		mode, cut, err := decodeMode(f)
		if err != nil {
			return nil, err
		}
		switch {
		case cut && len(out.Warnings) < maxWarnings:
			out.Warnings = append(out.Warnings, fmt.Sprintf("file %q: the provider asked for mode %#o, which became %#o",
				clean(f.GetPath(), maxObjectBytes), f.GetMode(), mode))
		case cut:
			more++
		}
		out.Files = append(out.Files, provider.File{Path: f.GetPath(), Mode: mode, Contents: f.GetContents()})
	}
	if more > 0 {
		out.Warnings = append(out.Warnings, fmt.Sprintf("the modes of %d more files were cut in the same way", more))
	}
	return out, nil
}

// decodeMode takes permission bits only. Set-id and sticky bits in their Unix places never had an effect, so they are cut
// off; anything else beyond 0777, which fs.FileMode would read as set-id, device or folder, is refused.
func decodeMode(f *v1alpha1.File) (mode fs.FileMode, cut bool, err error) {
	const unixBits = 0o7777
	if f.GetMode() < 0 || f.GetMode() > unixBits {
		return 0, false, malformed("file %q: mode %d is not from 0 to 511", clean(f.GetPath(), maxObjectBytes), f.GetMode())
	}
	mode = fs.FileMode(f.GetMode()) & fs.ModePerm
	return mode, int32(mode) != f.GetMode(), nil
}

func malformed(format string, args ...any) *provider.Error {
	return &provider.Error{Kind: provider.Internal, Message: fmt.Sprintf(format, args...),
		Remedy: "this is a fault of the provider: report it to its maintainers"}
}
