"""One round of a run without a wire: the work of a worker and of the server between the messages.

A round has two sides. A worker's side computes local updates, encodes them, decodes what comes down, and
takes the step to the next models. The server's side compares what the workers sent, combines it, and under
some strategies aggregates it. `sides` defines the interface of both sides. `coded_worker` and `coded_server`
implement it over GF(2^8), `linear` implements it over the reals, and `strategies` has one object for each
strategy, which makes plans and sides. The packages `worker` and `server` carry the bytes; tests pass them on
by hand.

**How to add a kind of update.** The sides carry vectors of any length and dtype. Everything that depends on
the kind of update is a method of the trainer or of its problem:

- `Problem.wire` gives the length (`length`) and dtype (`dtype`) of a vector as it travels.
- `Trainer.packed_updates(out)` fills row `i` of `out` with the vector of partition `Trainer.own[i]`, and
  returns the mean loss of each. `Trainer.unpacked(n, packed)` turns a vector that travelled into
  numbers again.
- `Problem.aggregate(t, vectors)` makes one vector of the vectors of task `t`. If `Problem.columnwise` is
  true, it may be called for some columns at a time. `Problem.partial_sum(t, span, vectors)` makes one
  vector of the vectors of some consecutive partitions, which may travel in their place.
- `Trainer.step(Z)` takes the aggregates of all tasks and moves the models. `Trainer.advance(Z, ready)` may
  begin the step while vectors still arrive; it may also do nothing.
- `Trainer.penalty()`, `Trainer.residual` and `Problem.converged(objective, residual)` decide when a run ends.
- `Trainer.state()` and `Trainer.restore(state)` save and restore a state of `Problem.state_bytes` bytes,
  which brings a worker that was away up to date.

A kind of update with these methods needs no new side, no new message and no change in `worker` or `server`. A
new strategy is a pair of sides and an `ExchangeStrategy` in `strategies`.
"""
