// Package telemetry makes Prometheus metrics of what hashicorp/raft and raft-boltdb
// measure of themselves. They send it to the one sink of the process that
// hashicorp/go-metrics has; Collector makes that sink.
package telemetry

import (
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-metrics"
	sink "github.com/hashicorp/go-metrics/prometheus"
	"github.com/prometheus/client_golang/prometheus"
)

// Type of a metric.
type Type string

// The types that go-metrics has. A sample becomes a summary.
const (
	Counter Type = "counter"
	Gauge   Type = "gauge"
	Summary Type = "summary"
)

// Metric is one that the libraries may send.
type Metric struct {
	Type  Type
	Key   string // its parts as they are in the source, joined by dots
	Help  string
	Label string // its one label; "": it has none
}

// Name is the metric's name in Prometheus.
func (m Metric) Name() string { return strings.ReplaceAll(m.Key, ".", "_") }

// expiration is how long a series with labels stays that is not sent any more: that
// of a peer that has gone. Those without labels stay.
const expiration = 10 * time.Minute

// Collector has the libraries send their metrics to the collector that it returns, the
// same one each time: the sink is one for the whole process.
var Collector = sync.OnceValue(func() prometheus.Collector {
	reg := prometheus.NewRegistry() // the sink wants one at once
	opts := sink.PrometheusOpts{Expiration: expiration, Registerer: reg, Name: "raft"}
	for _, m := range Metrics() {
		if m.Label != "" {
			continue
		}
		name := strings.Split(m.Key, ".")
		switch m.Type {
		case Counter:
			opts.CounterDefinitions = append(opts.CounterDefinitions, sink.CounterDefinition{Name: name, Help: m.Help})
		case Gauge:
			opts.GaugeDefinitions = append(opts.GaugeDefinitions, sink.GaugeDefinition{Name: name, Help: m.Help})
		case Summary:
			opts.SummaryDefinitions = append(opts.SummaryDefinitions, sink.SummaryDefinition{Name: name, Help: m.Help})
		}
	}
	s, err := sink.NewPrometheusSinkFrom(opts)
	if err != nil {
		panic(err) // nothing but the sink is in a new registry
	}
	cfg := metrics.DefaultConfig("")
	cfg.EnableHostname, cfg.EnableRuntimeMetrics = false, false
	if _, err := metrics.NewGlobal(cfg, s); err != nil {
		panic(err) // it has no reason to
	}
	return s
})
