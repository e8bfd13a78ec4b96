package events

import (
	"cmp"
	"slices"
	"strings"
)

// platform is an index entry's platform.
type platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant"`
}

// pickPlatform chooses from an index as containerd's default does on linux/arch:
// the architecture itself, the newest variant first; else what it also runs
// (386 on amd64, 32-bit arm on arm64). Entries without a platform are
// candidates of the last resort.
func pickPlatform(entries []descriptor, arch string) (descriptor, bool) {
	candidates := slices.DeleteFunc(slices.Clone(entries), func(d descriptor) bool { return platformRank(d.Platform, arch) == 0 })
	if len(candidates) == 0 {
		return descriptor{}, false
	}
	slices.SortStableFunc(candidates, func(a, b descriptor) int {
		return cmp.Or(
			-cmp.Compare(platformRank(a.Platform, arch), platformRank(b.Platform, arch)),
			-cmp.Compare(variantOf(a), variantOf(b)),
		)
	})
	return candidates[0], true
}

// platformRank is 0 for what cannot run here, and grows with the fit.
func platformRank(p *platform, arch string) int {
	if p == nil {
		return 1
	}
	have := p.Architecture
	switch have {
	case "x86_64":
		have = "amd64"
	case "aarch64":
		have = "arm64"
	case "i386", "i686":
		have = "386"
	}
	switch {
	case p.OS != "linux" && p.OS != "":
		return 0
	case have == arch:
		return 3
	case arch == "amd64" && have == "386", arch == "arm64" && have == "arm":
		return 2
	}
	return 0
}

// variantOf orders variants. The plain architecture is amd64/v1 and arm64/v8; higher
// levels than that are not chosen by containerd either unless it was told to.
func variantOf(d descriptor) string {
	if d.Platform == nil {
		return ""
	}
	v := strings.ToLower(d.Platform.Variant)
	switch {
	case d.Platform.Architecture == "amd64" && (v == "" || v == "v1"):
		return "~" // sorts above every level
	case d.Platform.Architecture == "arm64" && (v == "" || v == "v8" || v == "8"):
		return "~"
	}
	return v
}
