package capture

import "container/heap"

// pending is deliveries that are not paired yet, ordered by time. They stay in the batches in
// which they came, each of which is ordered: there are as many as came while a delivery has to
// wait, some twenty at most, and a heap has the one with the earliest delivery first. So nothing
// is sorted or moved, and a delivery costs the same however many wait.
type pending struct {
	batches batchHeap
	spares  []*openBatch
	added   uint64
}

// openBatch is a batch, and how far it was taken.
type openBatch struct {
	batch
	next  int
	order uint64 // of batches, in which they came
}

func (r *openBatch) first() *delivery { return &r.deliveries[r.next] }

// batchHeap implements heap.Interface.
type batchHeap []*openBatch

func (h batchHeap) Len() int      { return len(h) }
func (h batchHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *batchHeap) Push(r any)   { *h = append(*h, r.(*openBatch)) }

func (h batchHeap) Less(i, j int) bool {
	x, y := h[i].first().Time, h[j].first().Time
	return x < y || x == y && h[i].order < h[j].order
}

func (h *batchHeap) Pop() any {
	last := len(*h) - 1
	r := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return r
}

// first returns the earliest delivery, nil if there is none. It is valid until pop.
func (w *pending) first() *delivery {
	if len(w.batches) == 0 {
		return nil
	}
	return w.batches[0].first()
}

// pop removes the earliest delivery. With the last one of its batch, the memory of all is reused.
func (w *pending) pop() {
	r := w.batches[0]
	if r.next++; r.next < len(r.deliveries) {
		heap.Fix(&w.batches, 0)
		return
	}
	heap.Pop(&w.batches)
	w.release(r)
}

// sparesKept bounds the memory that is kept for later batches.
const sparesKept = 2

func (w *pending) release(r *openBatch) {
	r.batch, r.next = r.emptied(), 0
	if len(w.spares) < sparesKept {
		w.spares = append(w.spares, r)
	}
}

// spare returns an empty batch, for add.
func (w *pending) spare() *openBatch {
	n := len(w.spares)
	if n == 0 {
		return &openBatch{}
	}
	r := w.spares[n-1]
	w.spares = w.spares[:n-1]
	return r
}

// add adds the deliveries of a batch.
func (w *pending) add(r *openBatch) {
	if len(r.deliveries) == 0 {
		w.release(r)
		return
	}
	w.added++
	r.order = w.added
	heap.Push(&w.batches, r)
}
