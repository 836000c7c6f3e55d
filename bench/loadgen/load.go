package main

import (
	"encoding/binary"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// afterError keeps a server that refuses at once from being asked in a tight loop.
const afterError = 10 * time.Millisecond

// record is what one slice has seen. All methods may be called at once.
type record struct {
	sync.Mutex
	latencies []byte
	errors    map[string]int
	open      int
	mostOpen  int
	latest    time.Duration
}

func (r *record) begin(behind time.Duration) {
	r.Lock()
	defer r.Unlock()
	r.open++
	r.mostOpen = max(r.mostOpen, r.open)
	r.latest = max(r.latest, behind)
}

func (r *record) end(problem string, latency time.Duration) {
	r.Lock()
	defer r.Unlock()
	r.open--
	if problem != "" {
		r.errors[problem]++
		return
	}
	r.latencies = binary.LittleEndian.AppendUint32(r.latencies, uint32(latency.Microseconds()))
}

func run(order Order, send Sender) Answer {
	seen := &record{errors: map[string]int{}}
	length := time.Duration(order.Seconds * float64(time.Second))
	cpu, began := cpuTime(), time.Now()
	if order.Rate > 0 {
		openLoop(began, length, order.Rate, send, seen)
	} else {
		closedLoop(began.Add(length), order.InFlight, send, seen)
	}
	return Answer{
		ElapsedS:   time.Since(began).Seconds(),
		ClientCPUS: (cpuTime() - cpu).Seconds(),
		Latencies:  seen.latencies,
		Errors:     seen.errors,
		MostOpen:   seen.mostOpen,
		LatestUS:   seen.latest.Microseconds(),
	}
}

// closedLoop keeps calls under way: each begins when the one before it has ended, so a server that stalls is asked less.
func closedLoop(end time.Time, inFlight int, send Sender, seen *record) {
	var callers sync.WaitGroup
	for caller := range inFlight {
		callers.Add(1)
		go func() {
			defer callers.Done()
			for before := time.Now(); before.Before(end); {
				seen.begin(0)
				problem := send(caller)
				after := time.Now()
				seen.end(problem, after.Sub(before))
				if problem != "" {
					time.Sleep(afterError)
					after = time.Now()
				}
				before = after
			}
		}()
	}
	callers.Wait()
}

// openLoop begins calls at fixed times and counts their latency from these times: what a server that stalls makes others wait
// is in the figures, whether or not this process or a connection had room to send.
func openLoop(began time.Time, length time.Duration, rate float64, send Sender, seen *record) {
	runtime.LockOSThread() // sleeps by itself: the runtime's timers are a millisecond late where nothing else wakes it
	defer runtime.UnlockOSThread()
	var calls sync.WaitGroup
	for number := 0; ; number++ {
		after := due(number, rate)
		if after >= length {
			break
		}
		sleepUntil(began.Add(after))
		calls.Add(1)
		seen.begin(time.Since(began) - after)
		go func() {
			defer calls.Done()
			problem := send(number)
			seen.end(problem, time.Since(began)-after)
		}()
	}
	calls.Wait()
}

// due is when the call of this number begins, after the first. It is counted from the start, so that lateness does not add up.
func due(number int, rate float64) time.Duration {
	return time.Duration(float64(number) / rate * float64(time.Second))
}

func sleepUntil(moment time.Time) {
	for {
		left := time.Until(moment)
		if left <= 0 {
			return
		}
		pause := syscall.NsecToTimespec(left.Nanoseconds())
		_ = syscall.Nanosleep(&pause, nil) // woken early by a signal: looks again
	}
}

func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
