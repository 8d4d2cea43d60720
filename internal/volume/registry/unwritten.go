package registry

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"keymount/internal/provider"
)

// ErrUnwritten is what errors of Save and Delete match if the folder could not be written. What was to be written counts all
// the same, for as long as the process lives. As a rule the next volume's record fares no better.
var ErrUnwritten = errors.New("the state folder could not be written")

// unwritten says what could not be written, and why, without names of temporary files: each would look like news.
func (r *Registry) unwritten(doing, volume string, err error) error {
	reason := err
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		reason = path.Err
	case errors.As(err, &link):
		reason = link.Err
	}
	return &provider.Error{
		Kind:    provider.Internal,
		Message: fmt.Sprintf("%s record of volume %q in %s: %v", doing, volume, r.root.Name(), reason),
		Remedy:  "see to it that the driver's state folder (--state-dir) can be written and has room",
		Cause:   errors.Join(ErrUnwritten, reason),
	}
}
