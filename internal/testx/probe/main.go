// Probe runs inside test containers and tells what network it has.
//
//	probe now              print what is there at the first instruction, as JSON
//	probe hold             the same, then wait for a signal
//	probe serve ADDRESS    answer each TCP connection with the caller's address
//	probe call ADDRESS     connect, and print the answer
package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// seen is what `now` prints.
type seen struct {
	Time       time.Time        `json:"time"`
	Interfaces map[string]netif `json:"interfaces"`
	Default    []string         `json:"default"` // gateway and interface of each default route
}

type netif struct {
	MAC   string   `json:"mac"`
	MTU   int      `json:"mtu"`
	Up    bool     `json:"up"`
	Addrs []string `json:"addrs"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		args = []string{"now"}
	}
	switch {
	case args[0] == "now":
		return look(os.Stdout)
	case args[0] == "hold":
		if err := look(os.Stdout); err != nil {
			return err
		}
		done := make(chan os.Signal, 1)
		signal.Notify(done, syscall.SIGTERM, syscall.SIGINT)
		<-done
		return nil
	case args[0] == "serve" && len(args) == 2:
		return serve(args[1])
	case args[0] == "call" && len(args) == 2:
		return call(os.Stdout, args[1])
	}
	return fmt.Errorf("usage: probe now|hold|serve ADDRESS|call ADDRESS")
}

func look(w io.Writer) error {
	s := seen{Time: time.Now(), Interfaces: make(map[string]netif), Default: []string{}}
	links, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, l := range links {
		n := netif{MAC: l.HardwareAddr.String(), MTU: l.MTU, Up: l.Flags&net.FlagUp != 0, Addrs: []string{}}
		addrs, err := l.Addrs()
		if err != nil {
			return err
		}
		for _, a := range addrs {
			n.Addrs = append(n.Addrs, a.String())
		}
		s.Interfaces[l.Name] = n
	}
	if s.Default, err = defaultRoutes(); err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(s)
}

// defaultRoutes reads /proc/net/route: addresses there are in host byte order.
func defaultRoutes() ([]string, error) {
	f, err := os.Open("/proc/net/route")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	routes := []string{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 8 || fields[1] != "00000000" || fields[7] != "00000000" {
			continue
		}
		var gateway uint32
		if _, err := fmt.Sscanf(fields[2], "%X", &gateway); err != nil {
			return nil, err
		}
		var addr [4]byte
		binary.NativeEndian.PutUint32(addr[:], gateway)
		routes = append(routes, netip.AddrFrom4(addr).String()+" "+fields[0])
	}
	return routes, lines.Err()
}

func serve(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		fmt.Fprintln(conn, conn.RemoteAddr())
		conn.Close()
	}
}

func call(w io.Writer, address string) error {
	conn, err := net.DialTimeout("tcp", address, 3*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(3 * time.Second)); err != nil {
		return err
	}
	_, err = io.Copy(w, conn)
	return err
}
