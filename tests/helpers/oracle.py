"""The paper's three training loops in plain NumPy, as a reference to check the library against.

Miconi, "Neural networks with differentiable structure" (arXiv:1606.06216), revisions 1 to 3 of the
text and its program. One sequence at a time, float64, gradients by hand. Letters in shapes:
T characters of a sequence, V symbols of the alphabet, N units, K units kept, A units added.

    h_t = tanh(W_xh x_t + W_hh h_{t-1} + b_h)        x_t one-hot
    y_t = W_hy (m * h_t) + b_y                       m = 1 where there are no multipliers
    loss = sum_t -log softmax(y_t)[target_t]
"""

from types import SimpleNamespace

import numpy as np

STEPS = 40  # T: characters per step
SCALE = 0.01  # standard deviation of initial weights, and of a new unit's

REVISIONS_1_AND_2 = SimpleNamespace(  # importance (salience): a multiplier per unit; optimizer: Adagrad
    T_D=0.05,  # a unit is sub-threshold where its importance is at most this
    k=1,  # sub-threshold units that are kept in reserve
    p_add=0.05,  # probability per step to add a unit, with fewer than k in reserve
    p_delete=0.25,  # probability per step of each sub-threshold unit in excess of k to go
    p_spontaneous=1e-4,  # probability per step to add a unit whatever the reserve
    cap=99,  # most units
    price=3e-5,  # L1 on the multipliers, added to their gradient at each of the T steps
    m_min=0.025,  # floor of the multipliers
    limit=5.0,  # each entry of a gradient is clipped to plus or minus this
    rate=0.1,  # learning rate of Adagrad
    eps=1e-8,  # added inside the square root of its accumulators
    acc_first=dict.fromkeys(("W_xh", "W_hh", "W_hy", "b_h", "b_y", "m"), 0.0),
    acc_new=0.0,  # accumulators of a new unit
    smoothing=0.999,  # decay of the moving average of the loss
)
REVISION_3 = SimpleNamespace(  # importance: L1 norm of outgoing weights; optimizer: RMSProp
    T_D=0.05,
    k=1,
    p_add=0.01,
    p_delete=0.05,
    p_spontaneous=1e-4,
    cap=99,
    price=1e-4,  # L1 on W_hy and W_hh, taken off their absolute values after each update
    limit=0.01,  # each entry of an update is clipped to plus or minus this
    rate=0.01,  # learning rate of RMSProp
    eps=1e-8,  # added inside the square root of its accumulators
    forget=0.01,  # 1 - decay of its accumulators
    acc_first={"W_xh": 0.01, "W_hh": 0.0, "W_hy": 0.0, "b_h": 0.01, "b_y": 0.0},
    acc_new=0.01,
    smoothing=0.99,
)
CONSTANTS = {1: REVISIONS_1_AND_2, 2: REVISIONS_1_AND_2, 3: REVISION_3}

# The dimensions of each array that have one entry per unit.
UNIT_AXES = {"W_xh": (0,), "W_hh": (0, 1), "W_hy": (1,), "b_h": (0,), "b_y": (), "m": (0,)}


class Oracle:
    """A network of one revision of the paper, and its training.

    `update` does all of an update but the change of structure; `decide`, `draw_new_units` and
    `restructure` do that, one after the other, and `step` calls all four.

    Attributes: W_xh [N, V], W_hh [N, N], W_hy [V, N], b_h [N], b_y [V], m [N] (ones where they are
    not trained), h [N] (the state that is carried over), acc (the optimizer's accumulators, by the
    name of each trained parameter), smoothed (the moving average of the loss).
    """

    def __init__(self, revision, symbols, rng, units=1, fixed=False):
        self.revision, self.fixed, self.rng = revision, fixed, rng
        self.c = CONSTANTS[revision]
        self.W_xh = rng.normal(0, SCALE, (units, symbols))  # [N, V]
        self.W_hh = rng.normal(0, SCALE, (units, units))  # [N, N]
        self.W_hy = rng.normal(0, SCALE, (symbols, units))  # [V, N]
        self.b_h = np.zeros(units)  # [N]
        self.b_y = np.zeros(symbols)  # [V]
        self.m = np.ones(units)  # [N]
        self.h = np.zeros(units)  # [N]
        self.has_multipliers = revision in (1, 2) and not fixed
        self.trained = ["W_xh", "W_hh", "W_hy", "b_h", "b_y", *["m"] * self.has_multipliers]
        self.acc = {name: np.full_like(getattr(self, name), self.c.acc_first[name]) for name in self.trained}
        self.smoothed = STEPS * np.log(symbols)

    @property
    def units(self):
        return len(self.b_h)

    @property
    def symbols(self):
        return len(self.b_y)

    def gradients(self, inputs, targets, h):
        """The loss on `inputs`, `targets` (both [T] integers), read from the state `h` [N] on.

        Returns the loss, its gradient for each trained parameter, and the last state. No gradient
        flows into `h`, and the price is not in any.
        """
        steps = len(inputs)
        x = np.eye(self.symbols)[inputs]  # [T, V]
        hs = np.empty((steps + 1, self.units))  # [T + 1, N]: the states before, between and after
        p = np.empty((steps, self.symbols))  # [T, V]: probabilities of the next symbol
        hs[0] = h
        loss = 0.0
        for t in range(steps):
            hs[t + 1] = np.tanh(self.W_xh[:, inputs[t]] + self.W_hh @ hs[t] + self.b_h)  # [N]
            y = self.W_hy @ (self.m * hs[t + 1]) + self.b_y  # [V]
            y -= y.max()  # changes no probability, and no exponential overflows
            e = np.exp(y)  # [V]
            p[t] = e / e.sum()
            loss += np.log(e.sum()) - y[targets[t]]

        before, after = hs[:-1], hs[1:]  # [T, N] each
        dy = p - np.eye(self.symbols)[targets]  # [T, V]
        dout = np.empty((steps, self.units))  # [T, N]: W_hy^T dy_t
        da = np.empty((steps, self.units))  # [T, N]: with respect to what the tanh is taken of
        dh = np.zeros(self.units)  # [N]: from the later steps
        for t in reversed(range(steps)):
            dout[t] = self.W_hy.T @ dy[t]
            da[t] = (1 - after[t] ** 2) * (self.m * dout[t] + dh)
            dh = self.W_hh.T @ da[t]
        grads = {
            "W_xh": da.T @ x,  # [N, V]
            "W_hh": da.T @ before,  # [N, N]
            "W_hy": dy.T @ (self.m * after),  # [V, N]
            "b_h": da.sum(0),  # [N]
            "b_y": dy.sum(0),  # [V]
        }
        if self.has_multipliers:
            # Revision 1's known defect: m where h belongs.
            grads["m"] = (dout * (self.m if self.revision == 1 else after)).sum(0)  # [N]
        return loss, grads, hs[-1].copy()

    def update(self, inputs, targets, restart):
        """One update, up to the change of structure; the state is zeroed first on `restart`.

        Returns the loss on `inputs`, `targets` before the update.
        """
        h = np.zeros(self.units) if restart else self.h
        loss, grads, self.h = self.gradients(inputs, targets, h)
        if self.revision == 3:
            self._rmsprop(grads)
            self.W_hy -= self.c.price * np.sign(self.W_hy)
            self.W_hh -= self.c.price * np.sign(self.W_hh)
        else:
            if self.has_multipliers:
                grads["m"] += len(inputs) * self.c.price * np.sign(self.m)
            self._adagrad(grads)
            if self.has_multipliers:
                np.maximum(self.m, self.c.m_min, out=self.m)
        self.smoothed += (1 - self.c.smoothing) * (loss - self.smoothed)
        return loss

    def _adagrad(self, grads):
        for name in self.trained:
            p, acc = getattr(self, name), self.acc[name]
            g = np.clip(grads[name], -self.c.limit, self.c.limit)
            acc += g * g
            p -= self.c.rate * g / np.sqrt(acc + self.c.eps)

    def _rmsprop(self, grads):
        for name in self.trained:
            p, acc, g = getattr(self, name), self.acc[name], grads[name]
            acc += self.c.forget * (g * g - acc)
            p -= np.clip(self.c.rate * g / np.sqrt(acc + self.c.eps), -self.c.limit, self.c.limit)

    def importance(self):
        """The paper's salience: the multiplier, or the L1 norm of the outgoing weights, [N]."""
        if self.revision in (1, 2):
            return self.m.copy()
        outside = np.abs(self.W_hy).sum(0)  # [N]: column sums
        inside = np.abs(self.W_hh).sum(0)  # [N]: column sums
        return 0.5 * (outside + self.symbols * inside / self.units)

    def decide(self, rng):
        """The rule: indices of the units that stay (ascending), and how many come (0 or 1)."""
        assert not self.fixed
        c = self.c
        sub = np.flatnonzero(self.importance() <= c.T_D)
        keep = np.ones(self.units, dtype=bool)
        if len(sub) > c.k:
            excess = rng.permutation(sub)[c.k :]
            keep[excess] = rng.random(len(excess)) >= c.p_delete
        short = len(sub) < c.k and rng.random() < c.p_add
        add = short or rng.random() < c.p_spontaneous
        return np.flatnonzero(keep), int(add and keep.sum() < c.cap)

    def draw_new_units(self, rng, kept, add):
        """Draw `add` new units beside `kept` others: what `restructure` takes.

        W_xh [A, V] and W_hh_row [A, K] are incoming weights of the new units, W_hh_col [K + A, A] and
        W_hy [V, A] outgoing ones; between new units, the entry is in W_hh_col.
        """
        new = {
            "W_xh": rng.normal(0, SCALE, (add, self.symbols)),
            "W_hh_row": rng.normal(0, SCALE, (add, kept)),
            "W_hh_col": rng.normal(0, SCALE, (kept + add, add)),
            "W_hy": rng.normal(0, SCALE, (self.symbols, add)),
        }
        if self.revision == 3:
            # Either sum of the importance is to be T_D / 2, with K + A for N.
            half, share = self.c.T_D / 2, self.symbols / (kept + add)
            new["W_hy"] *= half / np.abs(new["W_hy"]).sum(0)
            new["W_hh_col"] *= half / (share * np.abs(new["W_hh_col"]).sum(0))
        return new

    def restructure(self, keep, new=None):
        """Keep the units `keep` and put those of `new` (see `draw_new_units`) behind them.

        Of a new unit, bias and state are 0 and the multiplier, where it is trained, is T_D.
        """
        assert not self.fixed
        new = self.draw_new_units(self.rng, len(keep), 0) if new is None else new
        kept, add = len(keep), len(new["W_xh"])
        for name in self.trained:
            axes = UNIT_AXES[name]
            setattr(self, name, _resize(getattr(self, name), axes, keep, add, 0.0))
            self.acc[name] = _resize(self.acc[name], axes, keep, add, self.c.acc_new)
        self.h = _resize(self.h, (0,), keep, add, 0.0)
        if not self.has_multipliers:
            self.m = np.ones(kept + add)
        else:
            self.m[kept:] = self.c.T_D
        self.W_xh[kept:] = new["W_xh"]
        self.W_hh[kept:, :kept] = new["W_hh_row"]
        self.W_hh[:, kept:] = new["W_hh_col"]
        self.W_hy[:, kept:] = new["W_hy"]

    def step(self, inputs, targets, restart):
        """A whole update, with the change of structure where the size is not fixed; the loss."""
        loss = self.update(inputs, targets, restart)
        if not self.fixed:
            keep, add = self.decide(self.rng)
            if add or len(keep) < self.units:
                self.restructure(keep, self.draw_new_units(self.rng, len(keep), add))
        return loss


def _resize(array, axes, keep, add, fill):
    """A copy of `array` with the entries `keep` of `axes`, and `add` more of `fill` behind."""
    for axis in axes:
        cut = np.take(array, keep, axis)
        shape = list(cut.shape)
        shape[axis] = add
        array = np.concatenate([cut, np.full(shape, fill)], axis)
    return array
