"""One round of a run without a wire: what a worker and the server do between the messages.

A round has two sides. A worker's side computes local updates, encodes them, decodes what comes down, and
takes the step to the next models. The server's side compares what the workers sent, combines it, and under
some strategies aggregates it. `sides` says what both kinds of sides must be able to do, `coded_worker` and
`coded_server` do it over GF(2^8), `linear` does it over the reals, and `strategies` has one object for each
strategy, which makes plans and sides. The rooms `worker` and `server` carry the bytes; tests pass them on by
hand.

**How a new kind of update plugs in.** The sides carry vectors of any length and dtype. They ask a trainer and
its problem for all that depends on the kind of update:

- `Problem.wire` says how long a vector is as it travels (`length`), of which dtype (`dtype`), and makes
  numbers of it again (`unpack`).
- `Trainer.packed_updates(out)` fills row `i` of `out` with the vector of partition `Trainer.own[i]`, and
  returns the mean loss of each.
- `Problem.aggregate(t, vectors)` makes one vector of the vectors of task `t`; where `Problem.columnwise` is
  true, it may be asked for some columns at a time.
- `Trainer.step(Z)` takes the aggregates of all tasks and moves the models. `Trainer.advance(Z, ready)` may
  begin with that while vectors still come; it may do nothing.
- `Trainer.penalty()`, `Trainer.residual` and `Problem.converged(objective, residual)` decide when a run ends.
- `Trainer.state()` and `Trainer.restore(state)`, `Problem.state_bytes` long, are how a worker that was away
  comes back.

So a kind of update that has these needs no new side, no new message and no change in `worker` or `server`.
A new strategy (who combines what) is a pair of sides and an `ExchangeStrategy` in `strategies`.
"""
