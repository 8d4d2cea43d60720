package recordings

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// pages are the recorded pages of the list that begins at entry i.
func (s *session) pages(i int) []*node {
	var all []*node
	path := strings.Split(s.rec.entries[i].URI, "?")[0]
	for j, e := range s.rec.entries[i:] {
		p, _, _ := strings.Cut(e.URI, "?")
		if p != path || e.Method != http.MethodGet || j > 0 && !strings.Contains(e.URI, "skiptoken") {
			if j > 0 && p == path {
				break
			}
			continue
		}
		n, err := parse(e.ResponseBody)
		if err != nil {
			s.t.Fatalf("%s: %v", e.URI, err)
		}
		all = append(all, n)
		if n.get("nextLink") == nil || n.get("nextLink").kind == "null" {
			break
		}
	}
	return all
}

// list compares all recorded pages of a list with all emulated ones. What other tests had in the recorded vault is put into the emulator's first, so
// that every recorded item has a counterpart.
func (s *session) list(place string, i int, _, _ *node, u *url.URL) {
	recorded := s.pages(i)
	for _, page := range recorded {
		for _, item := range page.get("value").items {
			s.ensure(place, item, u)
		}
	}
	emulated := map[string]*node{}
	var ours []*node
	for next := s.target(u); next != ""; {
		res := s.send(http.MethodGet, next, nil, true)
		page, err := parse(res.Body.Bytes())
		if err != nil || res.Code != http.StatusOK || len(ours) > 1000 {
			s.differ(place, "page %d: status %d, %v", len(ours), res.Code, err)
			return
		}
		ours = append(ours, page)
		for _, item := range page.get("value").items {
			emulated[s.itemKey(item, true)] = item
		}
		next = page.text("nextLink")
	}
	s.pair(recorded, ours)
	for j, page := range recorded {
		s.Pages++
		// The recorded service also ends pages where deleted objects were, so that only first and last pages correspond.
		mine := ours[0]
		if page.get("nextLink").kind == "null" {
			mine = ours[len(ours)-1]
		} else if len(ours) == 1 {
			mine = nil
		}
		if mine != nil {
			s.page(fmt.Sprintf("%s page %d", place, j), page, mine)
		}
		for _, item := range page.get("value").items {
			s.Items++
			key := s.itemKey(item, false)
			if emulated[key] == nil {
				s.differ(place, "item %s is not in the emulated list", key)
				continue
			}
			s.members(place+" item "+key, item, emulated[key], s.same)
		}
	}
}

// pair matches recorded versions that no earlier answer showed with emulated ones that are left over, in the order of creation.
func (s *session) pair(recorded, ours []*node) {
	known := map[string]bool{}
	for _, v := range s.versions {
		known[v] = true
	}
	free := versionsOf(ours, func(v string) bool { return !known[v] })
	for _, v := range versionsOf(recorded, func(v string) bool { return s.versions[v] == "" }) {
		if len(free) > 0 {
			s.versions[v], free = free[0], free[1:]
		}
	}
}

// versionsOf are the version ids of items, oldest first.
func versionsOf(pages []*node, want func(string) bool) []string {
	var items []*node
	for _, page := range pages {
		items = append(items, page.get("value").items...)
	}
	slices.SortStableFunc(items, func(a, b *node) int {
		return unix(a.get("attributes", "created")).Compare(unix(b.get("attributes", "created")))
	})
	var all []string
	for _, item := range items {
		for _, v := range hexVersion.FindAllString(item.text("id")+item.text("kid"), -1) {
			if want(v) {
				all = append(all, v)
			}
		}
	}
	return all
}

// page compares the members of a page but not the items.
func (s *session) page(place string, want, got *node) {
	s.Members++
	if !slices.Equal(want.names, got.names) {
		s.differ(place, "members: recorded %v, emulated %v", want.names, got.names)
	}
	if got.get("nextLink") != nil {
		s.member(place+".nextLink", "nextLink", want.get("nextLink"), got.get("nextLink"), s.same)
	}
}

// itemKey is an item's id without host, in terms of the emulator's versions.
func (s *session) itemKey(item *node, emulated bool) string {
	id := item.text("id") + item.text("kid")
	u, err := url.Parse(id)
	if err != nil {
		return id
	}
	key := u.Path
	if !emulated {
		for _, v := range hexVersion.FindAllString(key, -1) {
			if s.versions[v] != "" {
				key = strings.ReplaceAll(key, v, s.versions[v])
			}
		}
	}
	return strings.ToUpper(key)
}
