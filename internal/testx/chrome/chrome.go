// Package chrome drives a headless Chromium in tests: it starts Debian's program with
// --remote-debugging-pipe and speaks the DevTools protocol over two pipes (JSON, each
// message ended by a zero byte), so that no port is opened and no library is needed.
package chrome

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"stellar.io/stellar/internal/testx"
)

const (
	// answerTimeout bounds one command on a busy machine.
	answerTimeout = 60 * time.Second
	endTimeout    = 10 * time.Second
)

// programs are the names under which distributions install it.
var programs = []string{"chromium", "chromium-browser", "google-chrome-stable"}

// Browser is a running Chromium. It ends with the test that started it.
type Browser struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when the process has been waited for
	said  *bytes.Buffer // what it wrote to stderr; read after ended
	to    io.WriteCloser

	mu      sync.Mutex // guards what follows, and writing
	next    int
	waiting map[int]chan message
	pages   map[string]*Page // by session
	closed  error            // why nothing is read any more
}

type message struct {
	ID      int             `json:"id"`
	Session string          `json:"sessionId"`
	Method  string          `json:"method"`
	Params  json.RawMessage `json:"params"`
	Result  json.RawMessage `json:"result"`
	Error   *struct {
		Message string `json:"message"`
		Data    string `json:"data"`
	} `json:"error"`
}

// Start starts a browser in ns, nil for this process's own namespace. Without the
// program the test fails and says what to install.
func Start(t testx.TB, ns *testx.NetNS) *Browser {
	t.Helper()
	b, err := start(t, ns)
	if err != nil {
		t.Fatalf("start Chromium: %v", err)
	}
	return b
}

func start(t testx.TB, ns *testx.NetNS) (*Browser, error) {
	path, err := find()
	if err != nil {
		return nil, err
	}
	home, err := os.MkdirTemp("", "stellar-chrome-")
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	in, to, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	from, out, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, in.Close(), to.Close())
	}
	// no-sandbox: root may not use it, and what is shown is our own page.
	cmd := exec.Command(path, "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-breakpad",
		"--disable-crash-reporter", "--disable-extensions", "--mute-audio", "--hide-scrollbars", "--force-color-profile=srgb", "--lang=en-GB",
		"--user-data-dir="+filepath.Join(home, "profile"), "about:blank")
	b := &Browser{cmd: cmd, ended: make(chan struct{}), said: new(bytes.Buffer), to: to, waiting: map[int]chan message{}, pages: map[string]*Page{}}
	cmd.ExtraFiles = []*os.File{in, out} // descriptors 3 and 4
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_RUNTIME_DIR="+home, "TZ=UTC")
	cmd.Stderr = b.said
	cmd.WaitDelay = endTimeout // a child of its may keep stderr open
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	run := cmd.Start
	if ns != nil {
		run = func() error { return ns.Do(cmd.Start) }
	}
	err = run()
	in.Close()
	out.Close()
	if err != nil {
		return nil, errors.Join(err, to.Close(), from.Close())
	}
	go func() {
		_ = cmd.Wait() // how it ended is of no interest
		close(b.ended)
	}()
	go b.read(from)
	t.Cleanup(b.end)
	if err := b.call("", "Browser.getVersion", nil, nil); err != nil {
		return nil, fmt.Errorf("%s does not answer: %w", path, err)
	}
	return b, nil
}

func find() (string, error) {
	for _, name := range programs {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("there is none: apt-get install chromium (or: make web-deps)")
}

// end asks the browser to go and ends what is left of its processes, which are a
// group of their own.
func (b *Browser) end() {
	_ = b.send(message{ID: -1, Method: "Browser.close"})
	select {
	case <-b.ended:
	case <-time.After(endTimeout):
	}
	_ = syscall.Kill(-b.cmd.Process.Pid, syscall.SIGKILL)
	<-b.ended
	b.to.Close()
}

// read hands out what the browser says until it ends.
func (b *Browser) read(from io.ReadCloser) {
	defer from.Close()
	r := bufio.NewReaderSize(from, 1<<20)
	for {
		data, err := r.ReadBytes(0)
		var m message
		if err == nil {
			err = json.Unmarshal(data[:len(data)-1], &m)
		}
		b.mu.Lock()
		if err != nil {
			b.closed = fmt.Errorf("the browser has ended: %w", err)
			for id, c := range b.waiting {
				delete(b.waiting, id)
				close(c)
			}
			b.mu.Unlock()
			return
		}
		reply, page := b.waiting[m.ID], b.pages[m.Session]
		if m.Method == "" {
			delete(b.waiting, m.ID)
		}
		b.mu.Unlock()
		switch {
		case m.Method == "" && reply != nil:
			reply <- m
		case m.Method != "" && page != nil:
			page.happened(m)
		}
	}
}

func (b *Browser) send(m message) error {
	data, err := json.Marshal(struct {
		ID      int             `json:"id"`
		Session string          `json:"sessionId,omitempty"`
		Method  string          `json:"method"`
		Params  json.RawMessage `json:"params,omitempty"`
	}{m.ID, m.Session, m.Method, m.Params})
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	_, err = b.to.Write(append(data, 0))
	return err
}

// call sends a command and decodes its result into out, unless that is nil.
func (b *Browser) call(session, method string, params, out any) error {
	data, err := json.Marshal(params)
	if err != nil {
		return err
	}
	if params == nil {
		data = []byte("{}")
	}
	reply := make(chan message, 1)
	b.mu.Lock()
	b.next++
	id := b.next
	err = b.closed
	b.waiting[id] = reply
	b.mu.Unlock()
	if err == nil {
		err = b.send(message{ID: id, Session: session, Method: method, Params: data})
	}
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	select {
	case m, ok := <-reply:
		switch {
		case !ok:
			return fmt.Errorf("%s: the browser has ended", method)
		case m.Error != nil:
			return fmt.Errorf("%s: %s %s", method, m.Error.Message, m.Error.Data)
		case out == nil:
			return nil
		}
		return json.Unmarshal(m.Result, out)
	case <-time.After(answerTimeout):
		return fmt.Errorf("%s: no answer within %s", method, answerTimeout)
	}
}
