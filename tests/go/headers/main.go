// Reads a JSON list of header blocks (base64) on stdin, and prints as JSON what nats.go makes of each: what a
// router would see of a reply.
package main

import (
	"encoding/json"
	"log"
	"os"

	"github.com/nats-io/nats.go"
)

type reading struct {
	Problem   string
	Terminate []byte
	Failed    []byte
}

func main() {
	var blocks [][]byte
	if err := json.NewDecoder(os.Stdin).Decode(&blocks); err != nil {
		log.Fatal(err)
	}
	readings := make([]reading, len(blocks))
	for i, block := range blocks {
		header, err := nats.DecodeHeadersMsg(block)
		if err != nil {
			readings[i].Problem = err.Error()
			continue
		}
		readings[i].Terminate = []byte(header.Get("AJ-Terminate"))
		readings[i].Failed = []byte(header.Get("AJ-Error"))
	}
	if err := json.NewEncoder(os.Stdout).Encode(readings); err != nil {
		log.Fatal(err)
	}
}
