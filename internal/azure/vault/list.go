package vault

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
)

const (
	// maxPages and maxVersions bound a list. A page has 25 items unless some were left out.
	maxPages    = 500
	maxVersions = 10_000
)

// list reads all pages of a list of versions. Pages may be empty and still have a next one.
func (c *Client) list(ctx context.Context, k *call) ([]Version, int, error) {
	var all []Version
	address := k.object.address(c.cfg.APIVersion)
	for k.page = 0; ; k.page++ {
		if k.page == maxPages || len(all) > maxVersions {
			return nil, 0, k.object.malformed(errors.New("the list does not end"))
		}
		body, err := c.send(ctx, k, address)
		if err != nil {
			return nil, 0, err
		}
		page, next, err := decodePage(k.object, body)
		if err != nil {
			return nil, 0, k.object.malformed(err)
		}
		all = append(all, page...)
		if next == "" {
			break
		}
		if address, err = k.object.nextPage(next); err != nil {
			return nil, 0, k.object.malformed(err)
		}
	}
	slices.SortFunc(all, func(a, b Version) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		return strings.Compare(b.Version, a.Version)
	})
	return all, sizeOf(all), nil
}

// nextPage returns the address of the next page if it is one of the same list: the token goes with the request.
func (o object) nextPage(link string) (string, error) {
	const longest = 8 << 10
	u, err := url.Parse(link)
	if err != nil || len(link) > longest {
		return "", errors.New("its link to the next page is not an address")
	}
	own, err := url.Parse(o.vault)
	if err != nil || u.Scheme != "https" || u.User != nil || !strings.EqualFold(u.Hostname(), own.Hostname()) || port(u) != port(own) {
		return "", errors.New("its link to the next page leads to another host")
	}
	if !strings.EqualFold(strings.TrimSuffix(u.Path, "/"), "/"+o.kind.path()+"/"+o.name+"/versions") {
		return "", errors.New("its link to the next page leads to another list")
	}
	u.Fragment = ""
	return u.String(), nil
}

func port(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	return "443"
}
