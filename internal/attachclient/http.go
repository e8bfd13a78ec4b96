package attachclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// The protocol is HTTP/1.0, one request to a connection: the answer ends with the
// connection, and has no chunks. net/http can do that and all else, and takes as long
// to start as the rest of a program that asks one question.

// maxHead bounds what stands before the answer's body, in bytes.
const maxHead = 64 << 10

// answer is the agent's, as it came.
type answer struct {
	status string // "200 OK"
	body   []byte
}

const statusOK = "200"

// ok reports whether the status is 200.
func (a answer) ok() bool {
	code, _, _ := strings.Cut(a.status, " ")
	return code == statusOK
}

// post sends a body to the agent's service and reads the answer. Errors: *dialError,
// errLong, and those of the connection.
func (c *Client) post(ctx context.Context, method, timeout string, body []byte) (answer, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.path)
	if err != nil {
		return answer{}, &dialError{path: c.path, err: err}
	}
	defer conn.Close()
	// Covers ctx's deadline and its cancellation.
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	var req bytes.Buffer
	fmt.Fprintf(&req, "POST %s%s HTTP/1.0\r\nHost: stellar\r\nContent-Type: application/json\r\nConnect-Protocol-Version: 1\r\nContent-Length: %d\r\n", service, method, len(body))
	if timeout != "" {
		fmt.Fprintf(&req, "Connect-Timeout-Ms: %s\r\n", timeout)
	}
	req.WriteString("\r\n")
	req.Write(body)
	if _, err := conn.Write(req.Bytes()); err != nil {
		return answer{}, err
	}
	data, err := io.ReadAll(io.LimitReader(conn, maxHead+maxResponse+1))
	if err != nil {
		return answer{}, err
	}
	return parseAnswer(data)
}

// errLong is returned for an answer of more than maxResponse bytes.
var errLong = fmt.Errorf("the agent's answer is longer than %d bytes", maxResponse)

// parseAnswer reads all that came on a connection.
func parseAnswer(data []byte) (answer, error) {
	head, body, whole := bytes.Cut(data, []byte("\r\n\r\n"))
	first, fields, _ := strings.Cut(string(head[:min(len(head), maxHead)]), "\r\n")
	version, status, ok := strings.Cut(first, " ")
	switch {
	case len(data) == 0:
		return answer{}, io.ErrUnexpectedEOF
	case !ok || !strings.HasPrefix(version, "HTTP/1."):
		return answer{}, fmt.Errorf("not an answer in HTTP: %.60q", first)
	case !whole || len(head) > maxHead:
		return answer{}, io.ErrUnexpectedEOF
	case len(body) > maxResponse:
		return answer{}, errLong
	}
	for line := range strings.SplitSeq(fields, "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		switch {
		case strings.EqualFold(name, "Content-Length"):
			if n, err := strconv.Atoi(strings.TrimSpace(value)); err != nil || n != len(body) {
				return answer{}, io.ErrUnexpectedEOF
			}
		case strings.EqualFold(name, "Transfer-Encoding"):
			return answer{}, errors.New("an answer in chunks to a request of HTTP/1.0")
		}
	}
	return answer{status: status, body: body}, nil
}
