// Package daemon is the node daemon: it joins the packages that serve a node, in the order in which they need one another.
// It owns no decision about volumes. Run is called once.
package daemon

import (
	"context"
	"errors"
)

// Run serves the node until ctx is done.
func Run(context.Context, Config) error {
	return errors.New("this version of the driver does not serve a node")
}
