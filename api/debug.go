package api

// ReportFile is one file of a bug report.
type ReportFile struct {
	Name string
	Data []byte
}
