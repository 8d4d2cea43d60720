package podstatus

import (
	"encoding/json"

	v1 "keymount/api/v1"
	"keymount/internal/provider"
)

// maxConditions bounds what is kept of others' conditions, in bytes, for as long as the volume is there: whoever may write
// the object could have 1.5 MiB kept for each. With more, the next write leaves ours alone.
const maxConditions = 16 << 10

// The places of our conditions in a list of them.
const (
	refreshed = iota
	synced
)

// conditions are those that the object has of our types. A zero value is none.
type conditions [2]condition

func conditionTypes() [2]string { return [...]string{refreshed: v1.UpToDate, synced: v1.SecretsSynced} }

// A condition is one thing that the object says about the volume; one that is absent says that all is well.
type condition struct {
	status, reason, message string
	since                   string
}

// say reports whether the object's conditions are what is wanted.
func (cs conditions) say(wanted conditions, dropped bool) bool {
	for i, c := range cs {
		if !c.says(wanted[i], dropped) {
			return false
		}
	}
	return true
}

func (c condition) says(wanted condition, dropped bool) bool {
	switch {
	case wanted.status == "":
		return true
	case c.status == wanted.status:
		return c.reason == wanted.reason || wanted.status == "True"
	}
	return dropped || c.status == "" && wanted.status == "True"
}

// with returns what a write makes of the object's conditions. A volume whose Secrets never failed says nothing of them: most classes ask
// for none.
func (cs conditions) with(wanted conditions) conditions {
	out := cs
	for i, w := range wanted {
		if w.status != "" && (i == refreshed || cs[i].status != "" || w.status != "True") {
			out[i] = w
		}
	}
	return out
}

// entries returns our conditions as the object is to list them; the time of each changes with its status only.
func (cs conditions) entries(wanted conditions, now string) []any {
	list := []any{}
	for i, c := range cs.with(wanted) {
		if c.status == "" {
			continue
		}
		since := now
		if cs[i].status == c.status && cs[i].since != "" {
			since = cs[i].since
		}
		list = append(list, map[string]any{"type": conditionTypes()[i], "status": c.status, "reason": c.reason, "message": c.message, "lastTransitionTime": since})
	}
	return list
}

// readConditions tells our conditions from those of others, which are kept as they are.
func readConditions(items []any) (ours conditions, others []any) {
	for _, item := range items {
		fields, _ := item.(map[string]any)
		known := false
		for i, name := range conditionTypes() {
			if fields["type"] == name {
				known = true
				ours[i] = condition{status: text(fields, "status"), reason: text(fields, "reason"), message: text(fields, "message"),
					since: text(fields, "lastTransitionTime")}
			}
		}
		if !known {
			others = append(others, item)
		}
	}
	if text, err := json.Marshal(others); err != nil || len(text) > maxConditions {
		others = nil
	}
	return ours, others
}

// text is as much of a field as ours ever have.
func text(fields map[string]any, name string) string {
	value, _ := fields[name].(string)
	return provider.OneLine(value, maxMessage)
}
