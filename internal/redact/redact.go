// Package redact takes out of a text what gives rights to whoever reads it: join
// tokens, private keys in PEM, base64 and hexadecimal, passwords in URLs, and the
// values of what is called a secret. It is the second line: what writes a text for
// others leaves its secrets out in the first place.
package redact

import "regexp"

// Mark stands where something was taken out.
const Mark = "[redacted]"

// rule replaces what matches by with; a rule never makes a text longer for ever, so
// that a text may be redacted twice.
type rule struct {
	match *regexp.Regexp
	with  string
}

const (
	// name is what secrets are called, with what is around the word.
	name = `[\w.-]*(?:token|secret|passw(?:or)?d|passphrase|credential|private[_-]?key|api[_-]?key|authorization)[\w.-]*`
	// assigned stands between a name and its value. A colon alone is more often one of
	// a file and its line.
	assigned = `(?:["']?\s*=\s*|["']\s*:\s*|:\s+)`
)

var rules = []rule{
	// A key that is cut off goes to the end of the text. Line ends may be escaped.
	{regexp.MustCompile(`(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)`), Mark},
	// The beginnings of PKCS #8 (EC, Ed25519, RSA), SEC 1 and PKCS #1 keys in DER, in
	// base64 (with line ends) and in hexadecimal.
	{regexp.MustCompile(`(?:MI[GH][A-Za-z0-9+/]AgE[AB]|MHcCAQEEI|M[CF][A-Za-z0-9]CAQ[AE]wBQYDK2V|MII[A-Za-z0-9+/]{3}IBA)(?:[A-Za-z0-9+/=]|\\n|\s)+`), Mark + "\n"},
	{regexp.MustCompile(`(?i)(?:3081[0-9a-f]{2}02010[01]|302e020100|305[0-9a-f]020101|3077020101|3082[0-9a-f]{4}020100)[0-9a-f]+`), Mark},
	{regexp.MustCompile(`(?i)STELLAR1-[A-Z2-7]+`), Mark},
	{regexp.MustCompile(`(://[^/\s:@"']+:)[^/\s@"']+@`), "${1}" + Mark + "@"},
	{regexp.MustCompile(`(?i)\b(bearer|basic)(\s+)[A-Za-z0-9+/=._~-]{8,}`), "${1}${2}" + Mark},
	// name = value and "name": value, of TOML (with """), JSON, logs and URLs: inside a
	// string, as a string or a list, and bare. A string of JSON stays one.
	{regexp.MustCompile(`(?is)(` + name + `(?:\\["']?\s*[=:]\s*|\s*=\s*))\\"(?:[^"\\]|\\[^"])*\\"`), `${1}\"` + Mark + `\"`},
	{regexp.MustCompile(`(?is)(` + name + assigned + `)(?:""".*?"""|'''.*?'''|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|\[[^\]]*\])`), `${1}"` + Mark + `"`},
	{regexp.MustCompile(`(?i)(` + name + assigned + `)[^\s"'\[\]{},&\\]+`), `${1}` + Mark},
}

// Text returns the text without its secrets.
func Text(text []byte) []byte {
	for _, r := range rules {
		text = r.match.ReplaceAll(text, []byte(r.with))
	}
	return text
}
