package emulator

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const defaultPage = 25 // items; also the largest that may be asked for

// A row is an item of a list with the text by which the service sorts and continues.
type row struct {
	marker string
	item   func() any
}

func (c *call) list(deleted bool) *response {
	v, k := c.site.vault, c.route.kind
	from := v.live[k]
	if deleted {
		from = v.deleted[k]
	}
	var rows []row
	for upper, o := range from {
		if len(o.versions) == 0 && (k != certificates || c.r.URL.Query().Get("includePending") != "true") {
			continue
		}
		rows = append(rows, row{k.noun() + "/" + upper, func() any { return c.item(o, o.newest(), "") }})
	}
	path := string(k)
	if deleted {
		path = "deleted" + path
	}
	return c.page(rows, path)
}

// versions of an object that does not exist are an empty list, not an error.
func (c *call) versions() *response {
	k := c.route.kind
	var rows []row
	if o := c.site.vault.find(k, c.route.name); o != nil {
		for _, ver := range o.versions {
			rows = append(rows, row{k.noun() + "/" + strings.ToUpper(o.name+"/"+ver.id), func() any { return c.item(o, ver, ver.id) }})
		}
	}
	return c.page(rows, string(k)+"/"+c.route.name+"/versions")
}

// item is one object (id "") or one version of it, without any value.
func (c *call) item(o *object, ver *version, id string) any {
	v := c.site.vault
	parts := []string{string(o.kind), o.name}
	if id != "" {
		parts = append(parts, id)
	}
	ref := v.url(parts...)
	if ver == nil {
		return certificateItemJSON{ID: ref, Attributes: attributesJSON{}, Subject: new(string)}
	}
	attrs := v.attributes(ver.attrs, c.api)
	switch o.kind {
	case secrets:
		return secretJSON{deletedJSON: o.deletion, ContentType: ver.secret.contentType, ID: ref, Managed: ver.managed, Attributes: attrs, Tags: ver.tags}
	case keys:
		return keyItemJSON{deletedJSON: o.deletion, KID: ref, Attributes: attrs, Tags: ver.tags, Managed: ver.managed}
	}
	item := certificateItemJSON{deletedJSON: o.deletion, ID: ref, Attributes: attrs, Tags: ver.tags}
	if ver.cert != nil {
		item.X5T = ver.cert.thumbprint()
	}
	if o.deletion == nil {
		// Live items have an empty subject and no recovery level; deleted ones the reverse.
		item.Attributes.RecoveryLevel, item.Attributes.RecoverableDays = "", 0
		item.Subject = new(string)
	}
	return item
}

// page cuts out the page that the request asks for. The order is by upper-cased name, then by version id.
func (c *call) page(rows []row, path string) *response {
	query := c.r.URL.Query()
	size := defaultPage
	if text := query.Get("maxresults"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > defaultPage {
			return badParameter("The specified value for maxresults is not valid: it must be between 1 and 25.")
		}
		size = n
	}
	slices.SortFunc(rows, func(a, b row) int { return strings.Compare(a.marker, b.marker) })
	if text := query.Get("$skiptoken"); text != "" {
		after, err := readSkipToken(text)
		if err != nil {
			return badParameter("The specified $skiptoken is not valid.")
		}
		rows = slices.DeleteFunc(rows, func(r row) bool { return r.marker < after })
	}
	out := pageJSON{Value: []any{}}
	for _, r := range rows[:min(size, len(rows))] {
		out.Value = append(out.Value, r.item())
	}
	if len(rows) > size {
		next := c.nextLink(path, rows[size].marker, query)
		out.NextLink = &next
	}
	return jsonResponse(http.StatusOK, out)
}

// nextLink names port 443, has a raw $ and puts maxresults last, as the service does.
func (c *call) nextLink(path, marker string, query url.Values) string {
	link := fmt.Sprintf("https://%s:443/%s?api-version=%s&$skiptoken=%s", c.site.vault.host, path, url.QueryEscape(c.api), skipToken(marker))
	if m := query.Get("maxresults"); m != "" {
		link += "&maxresults=" + url.QueryEscape(m)
	}
	return link
}

type skipTokenJSON struct {
	NextMarker     string
	TargetLocation int
}

const lastTime = "9999-12-31T23:59:59.9999999Z"

// skipToken has the form of the service's: a marker in base64 with lengths, in JSON, in base64 without padding. The item
// that it names is the first of the next page.
func skipToken(marker string) string {
	inner := fmt.Sprintf("%06d!%s!%06d!%s!", len(marker), marker, len(lastTime), lastTime)
	inner = base64.StdEncoding.EncodeToString([]byte(inner))
	b, _ := json.Marshal(skipTokenJSON{NextMarker: fmt.Sprintf("2!%d!%s", len(inner), inner)}) // a string and a number
	return base64.RawURLEncoding.EncodeToString(b)
}

func readSkipToken(token string) (marker string, err error) {
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return "", fmt.Errorf("decoding the token: %w", err)
	}
	var t skipTokenJSON
	if err := json.Unmarshal(b, &t); err != nil {
		return "", fmt.Errorf("decoding the token: %w", err)
	}
	parts := strings.SplitN(t.NextMarker, "!", 3)
	inner, err := base64.StdEncoding.DecodeString(parts[len(parts)-1])
	if err != nil {
		return "", fmt.Errorf("decoding the marker: %w", err)
	}
	fields := strings.Split(string(inner), "!")
	if len(fields) < 4 {
		return "", fmt.Errorf("decoding the marker: %d fields", len(fields))
	}
	return fields[1], nil
}
