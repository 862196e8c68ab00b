// The yardstick in Go: serves with promhttp the series that come in on standard input, one JSON object a line.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

type series struct {
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels"`
	Value  float64           `json:"value"`
}

func main() {
	registry := prometheus.NewRegistry()
	families := map[string]*prometheus.CounterVec{}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(make([]byte, 1<<20), 1<<20)
	for lines.Scan() {
		if lines.Text() == "" {
			break
		}
		var one series
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			panic(err)
		}
		family := families[one.Name]
		if family == nil {
			var keys []string
			for key := range one.Labels {
				keys = append(keys, key)
			}
			family = prometheus.NewCounterVec(prometheus.CounterOpts{Name: one.Name, Help: "The same series."}, keys)
			registry.MustRegister(family)
			families[one.Name] = family
		}
		family.With(one.Labels).Add(one.Value)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Printf("http://%s\n", listener.Addr())
	http.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	go func() { panic(http.Serve(listener, nil)) }()
	lines.Scan() // until standard input ends
}
