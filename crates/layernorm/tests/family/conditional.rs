//! Conditional norm: parameters picked by an index.

use crate::adaptive::plain;
use crate::common::*;
use crate::random::Random;
use layernorm::reference::{Affine, Table as Exact, conditional_norm, conditional_norm_backward};
use layernorm::{
    Companion, ConditionalGradients, Error, Params, RowsByIndex, Run, Stats, Table, TableGradients,
    Workspace, conditional_layer_norm, conditional_layer_norm_backward,
    conditional_layer_norm_backward_in_place, conditional_layer_norm_in_place, conditional_rms_norm,
    conditional_rms_norm_backward, conditional_rms_norm_backward_in_place, conditional_rms_norm_in_place,
};

for_all_types!(
    within_the_bounds,
    one_index_is_the_plain_norm,
    an_entry_alone_has_the_bits_of_the_plain_norm,
    the_same_bits_everywhere,
    streamed_outputs_are_the_same,
);

#[derive(Debug, Clone)]
struct Case<E, R> {
    norm: Norm,
    entries: usize,
    n: usize,
    x: Vec<E>,
    dy: Vec<E>,
    weight: Option<Vec<R>>,
    bias: Option<Vec<R>>,
    index: Vec<usize>,
    eps: f64,
}

impl<E: Number, R: Number + Companion<E>> Case<E, R> {
    fn random(norm: Norm, [rows, entries]: [usize; 2], n: usize, random: &mut Random) -> Self {
        // Some entries often, some seldom, some never.
        let pick = |random: &mut Random| {
            let a = random.below(entries);
            if random.below(3) == 0 { a } else { a / 2 }
        };
        Self {
            norm,
            entries,
            n,
            x: normal(random, rows * n),
            dy: normal(random, rows * n),
            weight: random.pick(&[true, true, false]).then(|| normal(random, entries * n)),
            bias: random.pick(&[true, false]).then(|| normal(random, entries * n)),
            index: (0..rows).map(|_| pick(random)).collect(),
            eps: random.pick(&[0.0, 1e-6, 0.1]),
        }
    }

    fn run(&self, way: Way, run: Run) -> Results {
        let (n, rows, entries) = (self.n, self.index.len(), self.entries);
        let x = Strided::new(&self.x, n, way.hole);
        let weight = self.weight.as_ref().map(|of| Strided::new(of, n, 2 * way.hole));
        let bias = self.bias.as_ref().map(|of| Strided::new(of, n, 3 * way.hole));
        let table = Table {
            entries,
            weight: weight.as_ref().map(Strided::rows),
            bias: bias.as_ref().map(Strided::rows),
            index: &self.index,
            eps: self.eps,
        };
        let mut y = if way.in_place { x.clone() } else { Strided::blank(rows, n, way.hole) };
        let mut saved: Stats<E::Acc> = Stats::new(rows);
        let stats = saved.as_mut();
        match (self.norm, way.in_place) {
            (Norm::Layer, false) => conditional_layer_norm(x.rows(), table, y.rows_mut(), Some(stats), run),
            (Norm::Layer, true) => conditional_layer_norm_in_place(y.rows_mut(), table, Some(stats), run),
            (Norm::Rms, false) => conditional_rms_norm(x.rows(), table, y.rows_mut(), Some(stats.rstd), run),
            (Norm::Rms, true) => conditional_rms_norm_in_place(y.rows_mut(), table, Some(stats.rstd), run),
        }
        .unwrap();

        let dy = Strided::new(&self.dy, n, way.hole);
        let mut dx = if way.in_place { dy.clone() } else { Strided::blank(rows, n, way.hole) };
        let (mut dweight, mut dbias) = (Sums::<E>::new(entries, n), Sums::<E>::new(entries, n));
        let (mut workspace, mut order) = (Workspace::new(), RowsByIndex::new());
        let of_table = Some(TableGradients {
            dweight: Some(dweight.rows_mut()),
            dbias: Some(dbias.rows_mut()),
            accumulate: false,
            workspace: &mut workspace,
            order: &mut order,
        });
        let stats = (!way.without_saved).then(|| saved.as_ref());
        let rstd = stats.map(|stats| stats.rstd);
        if way.in_place {
            let dx = dx.rows_mut();
            match self.norm {
                Norm::Layer => {
                    conditional_layer_norm_backward_in_place(x.rows(), dx, table, stats, of_table, run)
                }
                Norm::Rms => conditional_rms_norm_backward_in_place(x.rows(), dx, table, rstd, of_table, run),
            }
        } else {
            let gradients = ConditionalGradients { dx: Some(dx.rows_mut()), table: of_table };
            match self.norm {
                Norm::Layer => {
                    conditional_layer_norm_backward(x.rows(), dy.rows(), table, stats, gradients, run)
                }
                Norm::Rms => conditional_rms_norm_backward(x.rows(), dy.rows(), table, rstd, gradients, run),
            }
        }
        .unwrap();
        vec![
            ("y", y.wide()),
            ("m", wide_acc::<E>(&saved.m)),
            ("rstd", wide_acc::<E>(&saved.rstd)),
            ("dx", dx.wide()),
            ("dweight", dweight.wide()),
            ("dbias", dbias.wide()),
        ]
    }
}

fn within_the_bounds<E: Number, R: Number + Companion<E>>() {
    let mut random = Random::new(31);
    for n in lengths() {
        for norm in Norm::BOTH {
            let [rows, entries] = random.pick(&[[0, 1], [0, 3], [1, 1], [9, 1], [9, 4], [40, 3], [5, 20]]);
            let case = Case::<E, R>::random(norm, [rows, entries], n, &mut random);
            let got = case.run(Way::default(), best());
            let what = format!("{norm:?} {rows} of {entries} x {n}");
            let (x, dy) = (wide(&case.x), wide(&case.dy));
            let one = vec![1.0; entries * n];
            let zero = vec![0.0; entries * n];
            let weight = case.weight.as_ref().map_or(one.clone(), |of| wide(of));
            let bias = case.bias.as_ref().map_or(zero.clone(), |of| wide(of));
            let norm_of = norm.reference(n, in_acc::<E>(case.eps));
            let table = Exact { entries, affine: Affine::new(&weight, &bias), index: &case.index };
            let out = conditional_norm(&x, norm_of, table);
            let back = conditional_norm_backward(&dy, &x, norm_of, table);
            let x_hat = conditional_norm(&x, norm_of, Exact { affine: Affine::new(&one, &zero), ..table }).y;
            let weight = |i: usize| weight[case.index[i / n] * n + i % n];
            near(&format!("{what}: y"), get(&got, "y"), &out.y, |i| {
                y_bound::<E>(x_hat[i], weight(i), out.y[i])
            });
            let unit = |row: usize| {
                let at = |j: usize| (weight(row * n + j) * dy[row * n + j]).abs();
                out.rstd[row] * (0..n).map(at).fold(0.0, f64::max)
            };
            near(&format!("{what}: dx"), get(&got, "dx"), &back.dx, |i| {
                dx_bound::<E, E>(unit(i / n), x_hat[i], back.dx[i])
            });
            let size = |k: usize, with_x_hat: bool| -> f64 {
                let one = |i: usize| dy[i].abs() * if with_x_hat { x_hat[i].abs() + 1.0 } else { 1.0 };
                (0..rows).filter(|row| case.index[*row] == k / n).map(|row| one(row * n + k % n)).sum()
            };
            near(&format!("{what}: dweight"), get(&got, "dweight"), &back.dweight, |k| {
                sum_bound::<E>(rows, size(k, true))
            });
            near(&format!("{what}: dbias"), get(&got, "dbias"), &back.dbias, |k| {
                sum_bound::<E>(rows, size(k, false))
            });
        }
    }
}

fn one_index_is_the_plain_norm<E: Number, R: Number + Companion<E>>() {
    let mut random = Random::new(32);
    for n in lengths() {
        for norm in Norm::BOTH {
            let mut case = Case::<E, R>::random(norm, [20, 3], n, &mut random);
            hard_rows(&mut case.x, n, &mut random);
            case.index.fill(2);
            let got = case.run(Way::default(), best());
            let params = Params {
                weight: case.weight.as_ref().map(|of| &of[2 * n..]),
                bias: case.bias.as_ref().map(|of| &of[2 * n..]),
                eps: case.eps,
            };
            let expected = plain(norm, (&case.x, &case.dy), params, n);
            for what in ["y", "m", "rstd", "dx"] {
                same(&format!("{norm:?} 20 x {n}: {what}"), get(&got, what), get(&expected, what));
            }
            for what in ["dweight", "dbias"] {
                same(&format!("{norm:?} 20 x {n}: {what}"), &get(&got, what)[2 * n..], get(&expected, what));
                assert!(get(&got, what)[..2 * n].iter().all(|sum| *sum == 0.0));
            }
        }
    }
}

/// The rows of an entry, taken out and given to the plain norm.
fn an_entry_alone_has_the_bits_of_the_plain_norm<E: Number, R: Number + Companion<E>>() {
    let mut random = Random::new(33);
    for (rows, entries, n) in [(9, 3, 3), (40, 5, 40), (100, 2, 129), (300, 3, 600)] {
        if !affordable(rows * n) {
            continue;
        }
        for norm in Norm::BOTH {
            let mut case = Case::<E, R>::random(norm, [rows, entries], n, &mut random);
            hard_rows(&mut case.x, n, &mut random);
            let got = case.run(Way::default(), best());
            for entry in 0..entries {
                let its: Vec<usize> = (0..rows).filter(|row| case.index[*row] == entry).collect();
                let take = |of: &[E]| -> Vec<E> {
                    its.iter().flat_map(|row| of[row * n..(row + 1) * n].to_vec()).collect()
                };
                let unit = entry * n..(entry + 1) * n;
                let params = Params {
                    weight: case.weight.as_ref().map(|of| &of[unit.clone()]),
                    bias: case.bias.as_ref().map(|of| &of[unit.clone()]),
                    eps: case.eps,
                };
                let expected = plain(norm, (&take(&case.x), &take(&case.dy)), params, n);
                let what = format!("{norm:?} {rows} of {entries} x {n}");
                for name in ["y", "dx"] {
                    let of_its: Vec<f64> =
                        its.iter().flat_map(|row| get(&got, name)[row * n..(row + 1) * n].to_vec()).collect();
                    same(&format!("{what}: {name}"), &of_its, get(&expected, name));
                }
                for name in ["dweight", "dbias"] {
                    same(&format!("{what}: {name}"), &get(&got, name)[unit.clone()], get(&expected, name));
                }
            }
        }
    }
}

fn the_same_bits_everywhere<E: Number, R: Number + Companion<E>>() {
    let mut random = Random::new(34);
    for (rows, entries, n) in
        [(9, 2, 1), (15, 4, 7), (33, 1, 40), (240, 60, 600), (260, 2, 600), (300, 3, 500), (3, 2, 9_000)]
    {
        if !affordable(rows * n) {
            continue;
        }
        for norm in Norm::BOTH {
            let mut case = Case::<E, R>::random(norm, [rows, entries], n, &mut random);
            hard_rows(&mut case.x, n, &mut random);
            let what = format!("{norm:?} {rows} of {entries} x {n}");
            in_every_way(&what, |way, run| case.run(way, run));
        }
    }
}

fn streamed_outputs_are_the_same<E: Number, R: Number + Companion<E>>() {
    let mut random = Random::new(35);
    for (rows, entries, n) in [(18_000, 7, 60), (480, 100, 2200)] {
        if !affordable(rows * n) {
            continue;
        }
        let mut case = Case::<E, R>::random(Norm::Layer, [rows, entries], n, &mut random);
        hard_rows(&mut case.x, n, &mut random);
        here_and_there(&format!("{rows} of {entries} x {n}"), |run| case.run(Way::default(), run));
    }
}

#[test]
fn agree_with_differences_of_the_loss() {
    let mut random = Random::new(36);
    for (rows, entries, n) in [(1, 1, 1), (4, 2, 2), (6, 3, 7)] {
        if !affordable(rows * n) {
            continue;
        }
        for norm in Norm::BOTH {
            let case = Case::<f64, f64>::random(norm, [rows, entries], n, &mut random);
            let case = Case {
                eps: 0.1,
                weight: Some(normal(&mut random, entries * n)),
                bias: Some(normal(&mut random, entries * n)),
                ..case
            };
            let loss = |case: &Case<f64, f64>| -> f64 {
                let got = case.run(Way::default(), best());
                get(&got, "y").iter().zip(&case.dy).map(|(y, dy)| y * dy).sum()
            };
            let got = case.run(Way::default(), best());
            is_gradient("dx", get(&got, "dx"), &case.x, |x| loss(&Case { x: x.to_vec(), ..case.clone() }));
            is_gradient("dweight", get(&got, "dweight"), case.weight.as_ref().unwrap(), |weight| {
                loss(&Case { weight: Some(weight.to_vec()), ..case.clone() })
            });
            is_gradient("dbias", get(&got, "dbias"), case.bias.as_ref().unwrap(), |bias| {
                loss(&Case { bias: Some(bias.to_vec()), ..case.clone() })
            });
        }
    }
}

/// A workspace and an order that larger calls have used give the same sums, and need not grow again.
#[test]
fn memory_is_used_again() {
    let mut random = Random::new(37);
    let (mut workspace, mut order) = (Workspace::new(), RowsByIndex::new());
    for (rows, entries) in [(40, 9), (7, 2), (40, 9)] {
        if !affordable(rows) {
            continue;
        }
        let case = Case::<f32, f32>::random(Norm::Layer, [rows, entries], 5, &mut random);
        let (x, dy) = (Strided::new(&case.x, 5, 0), Strided::new(&case.dy, 5, 0));
        let table = Table::<f32> { entries, weight: None, bias: None, index: &case.index, eps: case.eps };
        let sums = |(workspace, order): (&mut Workspace<f32>, &mut RowsByIndex)| {
            let mut dweight = Strided::<f32>::blank(entries, 5, 0);
            let of_table = TableGradients {
                dweight: Some(dweight.rows_mut()),
                dbias: None,
                accumulate: false,
                workspace,
                order,
            };
            let gradients = ConditionalGradients { dx: None, table: Some(of_table) };
            conditional_layer_norm_backward(x.rows(), dy.rows(), table, None, gradients, best()).unwrap();
            dweight.wide()
        };
        let used = sums((&mut workspace, &mut order));
        same("dweight", &used, &sums((&mut Workspace::new(), &mut RowsByIndex::new())));
    }
}

#[test]
fn wrong_sizes_and_indices_are_refused_before_anything_is_written() {
    const N: usize = 4;
    let blank = |rows: usize| Strided::<f32>::blank(rows, N, 0);
    let x = blank(3);
    let shape = |what, right, got| Err(Error::Shape { what, expected: (right, N), got: (got, N) });
    let right = ([3, 2, 2, 2], vec![0, 1, 0]);
    for (rows, index, expected) in [
        (right.0, right.1.clone(), Ok(())),
        (right.0, vec![0, 1, 2], Err(Error::Index { row: 2, index: 2, entries: 2 })),
        (right.0, vec![usize::MAX, 0, 0], Err(Error::Index { row: 0, index: usize::MAX, entries: 2 })),
        (right.0, vec![0, 1], Err(Error::Length { what: "index", expected: 3, got: 2 })),
        ([2, 2, 2, 2], right.1.clone(), shape("dx", 3, 2)),
        ([3, 3, 2, 2], right.1.clone(), shape("weight", 2, 3)),
        ([3, 2, 1, 2], right.1.clone(), shape("bias", 2, 1)),
        ([3, 2, 2, 3], right.1.clone(), shape("dweight", 2, 3)),
    ] {
        let [of_y, of_weight, of_bias, of_dweight] = rows;
        let (weight, bias) = (blank(of_weight), blank(of_bias));
        let (mut y, mut dx, mut dweight) = (blank(of_y), blank(of_y), blank(of_dweight));
        let table = Table {
            entries: 2,
            weight: Some(weight.rows()),
            bias: Some(bias.rows()),
            index: &index,
            eps: 1e-6,
        };
        let forward = conditional_rms_norm(x.rows(), table, y.rows_mut(), None, best());
        let (mut workspace, mut order) = (Workspace::new(), RowsByIndex::new());
        let of_table = TableGradients {
            dweight: Some(dweight.rows_mut()),
            dbias: None,
            accumulate: false,
            workspace: &mut workspace,
            order: &mut order,
        };
        let gradients = ConditionalGradients { dx: Some(dx.rows_mut()), table: Some(of_table) };
        let backward = conditional_rms_norm_backward(x.rows(), x.rows(), table, None, gradients, best());
        assert_eq!(backward, expected);
        let of_forward = match expected {
            Err(Error::Shape { what: "dx", expected, got }) => Err(Error::Shape { what: "y", expected, got }),
            Err(Error::Shape { what: "dweight", .. }) => Ok(()),
            other => other,
        };
        assert_eq!(forward, of_forward);
        assert!(forward.is_ok() || y.untouched());
        assert!(backward.is_ok() || dx.untouched() && dweight.untouched());
    }
}
