// router is a Choria AsyncJobs router as an application would write it: it enqueues the tasks of a plan, routes them to
// remote handlers, and prints what became of each.
//
// The plan is JSON on stdin, the result JSON on stdout, the library's log goes to stderr.
package main

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"slices"
	"sync"
	"time"

	aj "github.com/choria-io/asyncjobs"
	"github.com/nats-io/nats.go"
)

// plan says what to do. Durations are milliseconds.
type plan struct {
	URL         string   `json:"url"`
	Queue       string   `json:"queue"`
	Routes      []string `json:"routes"`
	Tasks       []batch  `json:"tasks"`
	Settled     []string `json:"settled"`      // a task in one of these states is done with
	MaxRunTime  int      `json:"max_run_time"` // the source of the requests' deadline, which is 2 s earlier
	MaxTries    int      `json:"max_tries"`
	Backoff     int      `json:"backoff"` // before each further try
	Concurrency int      `json:"concurrency"`
	Timeout     int      `json:"timeout"`
	SigningSeed string   `json:"signing_seed"` // hex ed25519 seed; tasks are signed with it
}

// batch is a number of equal tasks.
type batch struct {
	Type    string          `json:"type"`
	Payload json.RawMessage `json:"payload"`
	Count   int             `json:"count"`
}

// outcome is what the task store says of one task in the end, and the states that it went through.
type outcome struct {
	ID        string   `json:"id"`
	Type      string   `json:"type"`
	State     string   `json:"state"`
	Tries     int      `json:"tries"`
	LastError string   `json:"last_error"`
	Result    []byte   `json:"result"` // base64 in JSON; null without a result
	States    []string `json:"states"`
	Errors    []string `json:"errors"`
}

type report struct {
	Tasks   []*outcome `json:"tasks"`
	Elapsed float64    `json:"elapsed_s"`
	Missing int        `json:"missing"` // not settled when the time was up
}

// constantBackoff is a retry policy with the same pause each time.
type constantBackoff time.Duration

func (b constantBackoff) Duration(int) time.Duration { return time.Duration(b) }

// stderrLogger keeps stdout for the report.
type stderrLogger struct{ *log.Logger }

func (l stderrLogger) Debugf(format string, v ...any) {}
func (l stderrLogger) Infof(format string, v ...any)  {}
func (l stderrLogger) Warnf(format string, v ...any)  { l.Printf("WARN "+format, v...) }
func (l stderrLogger) Errorf(format string, v ...any) { l.Printf("ERROR "+format, v...) }

func milliseconds(n int) time.Duration { return time.Duration(n) * time.Millisecond }

// watcher follows the events that the library publishes on each change of a task.
type watcher struct {
	mu       sync.Mutex
	settled  []string
	tasks    map[string]*outcome
	expected int
	open     map[string]bool
	done     chan struct{}
}

func (w *watcher) event(msg *nats.Msg) {
	parsed, _, err := aj.ParseEventJSON(msg.Data)
	change, ok := parsed.(aj.TaskStateChangeEvent)
	if err != nil || !ok {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	task := w.tasks[change.TaskID]
	if task == nil {
		task = &outcome{ID: change.TaskID, Type: change.TaskType}
		w.tasks[change.TaskID] = task
	}
	task.States = append(task.States, string(change.State))
	if change.LastErr != "" && (len(task.Errors) == 0 || task.Errors[len(task.Errors)-1] != change.LastErr) {
		task.Errors = append(task.Errors, change.LastErr)
	}
	w.open[change.TaskID] = !slices.Contains(w.settled, string(change.State))
	if !w.open[change.TaskID] {
		delete(w.open, change.TaskID)
		if len(w.tasks) == w.expected && len(w.open) == 0 {
			close(w.done)
			w.expected = -1
		}
	}
}

func connect(url string) (*nats.Conn, error) {
	// as the library's own NatsContext option does: the reply subject is a one-shot inbox
	return nats.Connect(url, nats.MaxReconnects(-1), nats.UseOldRequestStyle())
}

func run(p *plan) (*report, error) {
	nc, err := connect(p.URL)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	options := []aj.ClientOpt{
		aj.NatsConn(nc),
		aj.MemoryStorage(),
		aj.WorkQueue(&aj.Queue{
			Name: p.Queue, MaxRunTime: milliseconds(p.MaxRunTime), MaxTries: p.MaxTries, MaxConcurrent: p.Concurrency,
		}),
		aj.ClientConcurrency(p.Concurrency),
		aj.RetryBackoffPolicy(constantBackoff(milliseconds(p.Backoff))),
		aj.CustomLogger(stderrLogger{log.New(os.Stderr, "", log.Ltime|log.Lmicroseconds)}),
	}
	if p.SigningSeed != "" {
		seed, err := hex.DecodeString(p.SigningSeed)
		if err != nil {
			return nil, fmt.Errorf("signing seed: %w", err)
		}
		options = append(options, aj.TaskSigningKey(ed25519.NewKeyFromSeed(seed)))
	}
	client, err := aj.NewClient(options...)
	if err != nil {
		return nil, err
	}
	router := aj.NewTaskRouter()
	for _, route := range p.Routes {
		if err := router.RequestReply(route, client); err != nil {
			return nil, fmt.Errorf("route %q: %w", route, err)
		}
	}

	total := 0
	for _, b := range p.Tasks {
		total += b.Count
	}
	w := &watcher{
		settled: p.Settled, expected: total, tasks: map[string]*outcome{}, open: map[string]bool{}, done: make(chan struct{}),
	}
	events, err := connect(p.URL)
	if err != nil {
		return nil, err
	}
	defer events.Close()
	sub, err := events.Subscribe(aj.TaskStateChangeEventSubjectWildcard, w.event)
	if err != nil {
		return nil, err
	}
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return nil, err
	}
	if err := events.Flush(); err != nil {
		return nil, err
	}

	ctx, cancel := context.WithTimeout(context.Background(), milliseconds(p.Timeout))
	defer cancel()
	started := time.Now()
	failed := make(chan error, 1)
	go func() { failed <- client.Run(ctx, router) }()
	for _, b := range p.Tasks {
		for range b.Count {
			task, err := aj.NewTask(b.Type, b.Payload)
			if err != nil {
				return nil, err
			}
			if err := client.EnqueueTask(ctx, task); err != nil {
				return nil, err
			}
		}
	}
	select {
	case <-w.done:
	case <-ctx.Done():
	case err := <-failed:
		return nil, fmt.Errorf("the router ended: %v", err)
	}

	result := &report{Elapsed: time.Since(started).Seconds()}
	w.mu.Lock()
	defer w.mu.Unlock()
	result.Missing = total - len(w.tasks) + len(w.open)
	for _, task := range w.tasks {
		stored, err := client.LoadTaskByID(task.ID)
		if err != nil {
			return nil, err
		}
		task.State, task.Tries, task.LastError = string(stored.State), stored.Tries, stored.LastErr
		if stored.Result != nil {
			text, ok := stored.Result.Payload.(string)
			if !ok {
				return nil, fmt.Errorf("task %s: the result is a %T", task.ID, stored.Result.Payload)
			}
			if task.Result, err = base64.StdEncoding.DecodeString(text); err != nil {
				return nil, fmt.Errorf("task %s: the result is not base64: %w", task.ID, err)
			}
		}
		result.Tasks = append(result.Tasks, task)
	}
	return result, nil
}

func main() {
	p := &plan{
		Queue: "TEST", Settled: []string{"complete", "terminated", "expired"}, MaxRunTime: 30_000, MaxTries: 3, Backoff: 100,
		Concurrency: 50, Timeout: 60_000,
	}
	text, err := io.ReadAll(os.Stdin)
	if err == nil {
		err = json.Unmarshal(text, p)
	}
	var result *report
	if err == nil {
		result, err = run(p)
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(result)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "router:", err)
		os.Exit(1)
	}
}
