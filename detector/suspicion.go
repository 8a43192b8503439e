package detector

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Suspicion says when a GPU is suspected of faults that are the application's by
// their code: when it had the same one in pods of so many namespaces, within so
// long by the wall clock. No tenant can bring that about alone.
type Suspicion struct {
	Tenants int           `json:"tenants"` // 0: it is never suspected
	Within  time.Duration `json:"within"`
	// NamespaceLabel is the label of a namespace whose value names the tenant; empty:
	// the namespace is the tenant. Who attributes work fills Holder.Tenant by it.
	NamespaceLabel string `json:"namespaceLabel,omitempty"`
}

// maxSigns bounds what is remembered of one GPU, whatever its tenants do.
const maxSigns = 128

// TenantSign is the newest application fault of one code in one namespace.
type TenantSign struct {
	Code   int       `json:"code"`
	Tenant string    `json:"tenant"` // a namespace
	Last   time.Time `json:"last"`
}

// suspect notes an application fault of a tenant, and raises a suspicion against
// the GPU if others had it too.
func (f *folding) suspect(g *GPU) {
	e, limit := &f.event, f.policy.Suspicion
	tenant := e.Holder.tenant()
	if tenant == "" || limit.Tenants <= 0 {
		return
	}
	sign := TenantSign{Code: e.Xid.Code, Tenant: tenant, Last: e.Time}
	var signs []TenantSign
	same := 1
	for _, s := range g.Tenants {
		switch {
		case e.Time.Sub(s.Last) > limit.Within, s.Code == sign.Code && s.Tenant == tenant:
			continue
		case s.Code == sign.Code && same < limit.Tenants:
			same++
		case s.Code == sign.Code:
			continue // enough are known
		}
		signs = append(signs, s)
	}
	signs = append(signs, sign)
	g.Tenants = slices.Clip(signs[max(0, len(signs)-maxSigns):])
	if same >= limit.Tenants {
		row := f.policy.Reasons[SuspectedByTenants]
		v := Verdict{Reason: SuspectedByTenants, Class: row.Class, Effect: row.Effect, Action: row.Action}
		tenants := fmt.Sprintf("in %d namespaces", same)
		if limit.NamespaceLabel != "" {
			tenants = fmt.Sprintf("of %d tenants", same)
		}
		f.raise(g.PCI, v, fmt.Sprintf("Xid %d %s within %s", sign.Code, tenants, limit.Within), "", false)
	}
}

// tenant is whose the work is; empty if it is not known.
func (h *Holder) tenant() string {
	switch {
	case h == nil:
		return ""
	case h.Tenant != "":
		return h.Tenant
	}
	namespace, _, ok := strings.Cut(h.Pod, "/")
	if !ok {
		return ""
	}
	return namespace
}
