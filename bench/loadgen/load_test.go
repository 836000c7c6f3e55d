package main

import (
	"encoding/binary"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

func latencies(answer Answer) []time.Duration {
	var all []time.Duration
	for at := 0; at < len(answer.Latencies); at += 4 {
		all = append(all, time.Duration(binary.LittleEndian.Uint32(answer.Latencies[at:]))*time.Microsecond)
	}
	return all
}

func TestCallsAreDueAtFixedTimesThatLatenessDoesNotMove(t *testing.T) {
	if due(0, 200) != 0 || due(1, 200) != 5*time.Millisecond || due(2000, 200) != 10*time.Second {
		t.Fatal(due(0, 200), due(1, 200), due(2000, 200))
	}
}

func TestAnOpenLoopMakesEveryCallThatIsDueEvenIfNoneIsAnswered(t *testing.T) {
	gate, made := make(chan struct{}), atomic.Int32{}
	answer := run(Order{Rate: 100, Seconds: 0.2}, func(int) string {
		if made.Add(1) == 20 {
			close(gate)
		}
		<-gate
		return ""
	})
	all := latencies(answer)
	if len(all) != 20 || answer.MostOpen != 20 {
		t.Fatal(len(all), answer.MostOpen)
	}
	// The last was due 190 ms after the first, which waited for it: from when each was due, not from when it was let through.
	if longest := slices.Max(all); longest < 190*time.Millisecond {
		t.Fatal(longest)
	}
}

func TestAClosedLoopKeepsSoManyCallsUnderWay(t *testing.T) {
	answer := run(Order{InFlight: 3, Seconds: 0.05}, func(int) string { time.Sleep(time.Millisecond); return "" })
	if answer.MostOpen != 3 || len(latencies(answer)) < 3 {
		t.Fatal(answer.MostOpen, len(latencies(answer)))
	}
}

func TestEachCallerOfAClosedLoopHasANumberThatStays(t *testing.T) {
	var calls [3]atomic.Int64
	answer := run(Order{InFlight: len(calls), Seconds: 0.02}, func(caller int) string {
		if calls[caller].Add(1) > 1 {
			time.Sleep(time.Millisecond)
		}
		return ""
	})
	made := calls[0].Load() + calls[1].Load() + calls[2].Load()
	if made != int64(len(latencies(answer))) || min(calls[0].Load(), calls[1].Load(), calls[2].Load()) < 1 {
		t.Fatal(made, len(latencies(answer)))
	}
}

func TestAFailedCallIsCountedByWhatItSaidAndHasNoLatency(t *testing.T) {
	answer := run(Order{Rate: 100, Seconds: 0.03}, func(int) string { return "refused" })
	if answer.Errors["refused"] != 3 || len(answer.Latencies) != 0 {
		t.Fatal(answer.Errors, len(answer.Latencies))
	}
}
