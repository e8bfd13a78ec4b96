package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"stellar.io/stellar/api"
	"stellar.io/stellar/internal/atomicfile"
	"stellar.io/stellar/internal/redact"
)

// bugreport collects what helps to find a fault into one file. It leaves out what is
// secret, and redacts all text besides.
type bugreport struct {
	app *app
	agentFlags
	file string
}

func (a *app) bugreportCommand() *cobra.Command {
	c := &bugreport{app: a}
	cmd := &cobra.Command{
		Use: "bugreport", Short: "Collect what helps to find a fault into one file", Args: cobra.NoArgs,
		Long: "Writes a .tar.gz that only you can read: state, log, events, metrics and goroutines\n" +
			"of the agent, what the other commands show, and what the kernel has of Stellar.\n" +
			"Without an agent it has what can be collected, and says so. Keys, tokens and the\n" +
			"environments, labels and annotations of containers are left out; names and\n" +
			"addresses of containers and nodes are in it.",
	}
	c.add(cmd, "data-dir", "containerd-address")
	cmd.Flags().StringVarP(&c.file, "file", "O", "", "where it is written (default stellar-bugreport-HOST-TIME.tar.gz here)")
	return a.attach(cmd, c, waitTimeout)
}

// reportFile is one file of the report.
type reportFile struct {
	Name string `json:"name"`
	Size int    `json:"bytes"`
	Note string `json:"note"` // what is wrong with it; empty: nothing
	data []byte
}

func (c *bugreport) Run(ctx context.Context, _ []string, stdout, _ io.Writer) error {
	now := time.Now().UTC()
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	name := "stellar-bugreport-" + host + "-" + now.Format("20060102-150405")
	path := cmp.Or(c.file, name+".tar.gz")
	if dir, err := os.Stat(filepath.Dir(path)); err != nil || !dir.IsDir() {
		return api.Errorf(api.CodeInvalid, "%s is no directory", filepath.Dir(path))
	}
	files := c.collect(ctx)
	if err := ctx.Err(); err != nil {
		return err
	}
	files = append([]reportFile{{Name: "README.txt", data: readme(now, files)}}, files...)
	for i := range files {
		files[i].data = redact.Text(files[i].data)
		files[i].Note = string(redact.Text([]byte(files[i].Note)))
		files[i].Size = len(files[i].data)
	}
	packed, err := pack(name, now, files)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(path, packed, 0o600); err != nil {
		return err
	}
	return c.print(stdout, path, len(packed), files)
}

// collect asks all sources at once: one that hangs does not keep the others.
func (c *bugreport) collect(ctx context.Context) []reportFile {
	var mu sync.Mutex // guards files
	var files []reportFile
	var wg sync.WaitGroup
	from := func(source func(context.Context) []reportFile) {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, callTimeout)
			defer cancel()
			got := source(ctx)
			mu.Lock()
			defer mu.Unlock()
			files = append(files, got...)
		})
	}
	from(c.fromAgent)
	for _, args := range c.commands() {
		from(func(ctx context.Context) []reportFile { return []reportFile{c.fromCommand(ctx, args)} })
	}
	for _, source := range c.hostSources() {
		from(source)
	}
	wg.Wait()
	slices.SortFunc(files, func(a, b reportFile) int { return cmp.Compare(a.Name, b.Name) })
	return files
}

// fromAgent is what only the agent can tell.
func (c *bugreport) fromAgent(ctx context.Context) []reportFile {
	failed := func(err error) reportFile {
		return reportFile{Name: "agent/ERROR.txt", Note: err.Error(), data: []byte(err.Error() + "\n")}
	}
	cl, err := c.app.dial()
	if err != nil {
		return []reportFile{failed(err)}
	}
	defer cl.Close()
	got, err := cl.Bugreport(ctx)
	var files []reportFile
	for _, f := range got {
		// A name comes from the agent, and becomes a path of who unpacks the report.
		files = append(files, reportFile{Name: "agent/" + filepath.Base(f.Name), data: f.Data})
	}
	if err != nil {
		files = append(files, failed(err))
	}
	return files
}

// commands are those whose answers are in the report, as far as this program has them.
func (c *bugreport) commands() [][]string {
	root := (&app{getenv: c.app.getenv}).root() // to make a tree sets its app's flags anew
	return slices.DeleteFunc([][]string{
		{"version"}, {"status"}, {"check"}, {"events"}, {"endpoint", "ls"}, {"node", "ls"}, {"ipam", "ls"}, {"ipam", "check"},
		{"route", "ls"}, {"route", "ls", "--drift"}, {"raft", "peers"}, {"raft", "stats"}, {"cni", "status"},
	}, func(args []string) bool {
		_, rest, err := root.Find(args)
		return err != nil || len(rest) > 0 && !strings.HasPrefix(rest[0], "-")
	})
}

// fromCommand runs a command of this program and keeps what it prints.
func (c *bugreport) fromCommand(ctx context.Context, args []string) reportFile {
	var out, problems bytes.Buffer
	sub := &app{stdin: c.app.stdin, stdout: &out, stderr: &problems, getenv: c.app.getenv}
	line := append(slices.Clone(args), "-o", formatJSON)
	if c.app.address != "" {
		line = append(line, "-a", c.app.address)
	}
	code := sub.main(ctx, line)
	f := reportFile{Name: "commands/" + strings.ReplaceAll(strings.Join(args, "-"), "---", "-") + ".json", data: out.Bytes()}
	if code != exitOK {
		f.Note = fmt.Sprintf("exit code %d", code)
		if out.Len() == 0 {
			f.data = problems.Bytes()
		}
	}
	return f
}

// readme says what the report is.
func readme(now time.Time, files []reportFile) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "Bug report of Stellar %s, made %s.\n\n", versionText(buildInfo()), now.Format(time.RFC3339))
	b.WriteString("agent/     what the running agent says of itself\n" +
		"commands/  what `stellar …` prints\n" +
		"host/      what the machine and its kernel have\n\n" +
		"Keys, tokens, and the environments, labels and annotations of containers are left\n" +
		"out; " + redact.Mark + " stands where something that looked like one was. Names and\n" +
		"addresses of containers and nodes are in it.\n\n")
	for _, f := range files {
		if f.Note != "" {
			fmt.Fprintf(&b, "%s: %s\n", f.Name, f.Note)
		}
	}
	return b.Bytes()
}

// pack makes the archive, with everything in one directory.
func pack(dir string, now time.Time, files []reportFile) ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	t := tar.NewWriter(z)
	for _, f := range files {
		err := t.WriteHeader(&tar.Header{Name: dir + "/" + f.Name, Mode: 0o600, Size: int64(len(f.data)), ModTime: now.Truncate(time.Second)})
		if err != nil {
			return nil, err
		}
		if _, err := t.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := t.Close(); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

var reportColumns = []column[reportFile]{
	{head: "FILE", cell: func(f reportFile) string { return f.Name }},
	{head: "BYTES", cell: func(f reportFile) string { return fmt.Sprint(f.Size) }},
	{head: "NOTE", cell: func(f reportFile) string { return f.Note }},
}

func (c *bugreport) print(w io.Writer, path string, size int, files []reportFile) error {
	switch c.app.output {
	case formatJSON:
		return printJSON(w, "BugReport", struct {
			File     string       `json:"file"`
			Bytes    int          `json:"bytes"`
			Contents []reportFile `json:"contents"`
		}{path, size, files})
	case formatName:
		_, err := fmt.Fprintln(w, path)
		return err
	}
	if err := (listing[reportFile]{columns: reportColumns}).print(c.app, w, files); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s: %d files, %d bytes, for you alone to read.\n"+
		"It has names and addresses of containers and nodes. Look through it before you hand it on.\n", path, len(files), size)
	return err
}
