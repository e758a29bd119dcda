//! QK norm, and rows that are heads in a buffer of more.

use super::tools::*;
use layernorm::{
    Gradients, HeadNorm, Heads, Params, QkParams, Rows, RowsMut, Run, Workspace, l2_norm, l2_norm_backward,
    layer_norm, layer_norm_backward, qk_norm, qk_norm_backward, qk_norm_backward_in_place, qk_norm_in_place,
    rms_norm, rms_norm_backward, rms_norm_in_place,
};

for_all!(heads_in_a_buffer_are_rows, each_head_has_its_own_parameters, the_operators_take_heads);

const NORMS: [HeadNorm; 3] = [HeadNorm::Rms, HeadNorm::Layer, HeadNorm::L2];

/// The heads as contiguous rows.
fn copied<E: Number>(buffer: &[E], at: Heads) -> Vec<E> {
    let rows = Rows::heads(buffer, at).unwrap();
    assert_eq!((rows.rows(), rows.features()), (at.tokens * at.heads, at.head_dim));
    assert!(rows.row(rows.rows()).is_none());
    (0..rows.rows()).flat_map(|row| rows.row(row).unwrap().to_vec()).collect()
}

/// All that isn't one of the heads.
fn others<E: Number>(buffer: &[E], at: Heads) -> Vec<f64> {
    let inside = |i: usize| {
        i >= at.offset
            && (i - at.offset) % at.stride < at.heads * at.head_dim
            && (i - at.offset) / at.stride < at.tokens
    };
    (0..buffer.len()).filter(|i| !inside(*i)).map(|i| buffer[i].wide()).collect()
}

/// Queries or keys among q, k and v, and views of other kinds.
fn layouts() -> Vec<(Heads, usize)> {
    let mut all = vec![];
    for (tokens, heads, head_dim) in [(0, 2, 4), (1, 1, 1), (3, 2, 4), (5, 3, 33), (9, 4, 64), (2, 5, 257)] {
        let width = heads * head_dim;
        let fused = Heads { tokens, heads, head_dim, stride: 3 * width, offset: width };
        all.push((fused, tokens * 3 * width));
        all.push((Heads { stride: width, offset: 0, ..fused }, tokens * width));
        all.push((Heads { stride: width + 7, offset: 2, ..fused }, tokens * (width + 7) + 2));
    }
    if !cfg!(miri) {
        // So many that threads share them, and that outputs go past the cache.
        let large = Heads { tokens: 700, heads: 12, head_dim: 64, stride: 3 * 768, offset: 768 };
        all.push((large, 700 * 3 * 768));
    }
    all
}

fn heads_in_a_buffer_are_rows<E: Number>() {
    let mut random = Random::new(91);
    for ((at, len), norm) in layouts().into_iter().flat_map(|layout| NORMS.map(|norm| (layout, norm))) {
        let (buffer, dy): (Vec<E>, Vec<E>) = (random.numbers(len), random.numbers(len));
        let many = [1, at.head_dim][random.below(2)];
        let weight: Vec<E> = random.numbers(many);
        let (heads, eps) = (at.heads, 1e-5);
        let params = QkParams { norm, heads, weight: Some(&weight), bias: None, eps };
        let n = at.head_dim;
        let contiguous = Heads { stride: heads * n, offset: 0, ..at };
        // In buffers, and of copies: forward, then backward, each of them in place too.
        let run = |at: Heads, buffer: &[E], dy: &[E], run: Run| {
            let (mut y, mut dx) = (blank::<E>(buffer.len()), blank::<E>(buffer.len()));
            let x = Rows::heads(buffer, at).unwrap();
            qk_norm(x, params, RowsMut::heads(&mut y, at).unwrap(), run).unwrap();
            let mut dweight = blank::<E::Acc>(weight.len());
            let mut workspace = Workspace::new();
            let gradients = Gradients {
                dx: Some(RowsMut::heads(&mut dx, at).unwrap()),
                params: Some(of_params(Some(&mut dweight), None, &mut workspace)),
            };
            qk_norm_backward(x, Rows::heads(dy, at).unwrap(), params, gradients, run).unwrap();
            assert!(
                others(&y, at).iter().chain(&others(&dx, at)).all(|value| *value == E::of(-1234.5).wide())
            );
            let (mut y_in_place, mut dx_in_place) = (buffer.to_vec(), dy.to_vec());
            qk_norm_in_place(RowsMut::heads(&mut y_in_place, at).unwrap(), params, run).unwrap();
            let to = RowsMut::heads(&mut dx_in_place, at).unwrap();
            qk_norm_backward_in_place(x, to, params, None, run).unwrap();
            assert_eq!(others(&y_in_place, at), others(buffer, at));
            assert_eq!(others(&dx_in_place, at), others(dy, at));
            let [y, dx] = [copied(&y, at), copied(&dx, at)].map(|of| wide(&of));
            same(
                &[wide(&copied(&y_in_place, at)), wide(&copied(&dx_in_place, at))],
                &[y.clone(), dx.clone()],
                "in place",
            );
            vec![y, dx, wide(&dweight)]
        };
        let got = everywhere(|how| run(at, &buffer, &dy, how));
        let (x, dy) = (copied(&buffer, at), copied(&dy, at));
        same(&got, &run(contiguous, &x, &dy, Run::default()), &format!("{at:?} {norm:?}"));
        // And these are the operators that have names of their own.
        let (mut y, mut dx) = (blank::<E>(x.len()), blank::<E>(x.len()));
        let plain = Params { weight: Some(&weight[..]), bias: None, eps };
        let [x, dy] = [&x, &dy].map(|of| Rows::new(of, n).unwrap());
        let to = RowsMut::new(&mut y, n).unwrap();
        let gradients = Gradients { dx: Some(RowsMut::new(&mut dx, n).unwrap()), params: None };
        match norm {
            HeadNorm::Rms => {
                rms_norm(x, plain, to, None, Run::default()).unwrap();
                rms_norm_backward(x, dy, plain, None, gradients, Run::default()).unwrap();
            }
            HeadNorm::Layer => {
                layer_norm(x, plain, to, None, Run::default()).unwrap();
                layer_norm_backward(x, dy, plain, None, gradients, Run::default()).unwrap();
            }
            HeadNorm::L2 => continue,
        }
        same(&got[..2], &[wide(&y), wide(&dx)], &format!("{norm:?} by name"));
    }
}

fn each_head_has_its_own_parameters<E: Number>() {
    let mut random = Random::new(92);
    for ((at, len), norm) in layouts().into_iter().flat_map(|layout| NORMS.map(|norm| (layout, norm))) {
        if at.heads == 1 || at.tokens > 100 {
            continue;
        }
        let (n, heads, width) = (at.head_dim, at.heads, at.heads * at.head_dim);
        let (buffer, dy): (Vec<E>, Vec<E>) = (random.numbers(len), random.numbers(len));
        let (weight, bias): (Vec<E>, Vec<E>) = (random.numbers(width), random.numbers(width));
        let params = QkParams { norm, heads, weight: Some(&weight), bias: Some(&bias), eps: 1e-6 };
        let got = everywhere(|run| {
            let (x, dy_rows) = (Rows::heads(&buffer, at).unwrap(), Rows::heads(&dy, at).unwrap());
            let (mut y, mut dx) = (blank::<E>(len), blank::<E>(at.tokens * width));
            qk_norm(x, params, RowsMut::heads(&mut y, at).unwrap(), run).unwrap();
            let (mut dweight, mut dbias) = (blank::<E::Acc>(width), blank::<E::Acc>(width));
            let mut workspace = Workspace::new();
            let gradients = Gradients {
                dx: Some(RowsMut::strided(&mut dx, at.tokens * heads, n, n).unwrap()),
                params: Some(of_params(Some(&mut dweight), Some(&mut dbias), &mut workspace)),
            };
            qk_norm_backward(x, dy_rows, params, gradients, run).unwrap();
            // In place with gradients of parameters, and dx alone.
            let mut in_place = dy.clone();
            let (mut again, mut workspace) = (blank::<E::Acc>(width), Workspace::new());
            let of = of_params(Some(&mut again), None, &mut workspace);
            let to = RowsMut::heads(&mut in_place, at).unwrap();
            qk_norm_backward_in_place(x, to, params, Some(of), run).unwrap();
            assert_eq!(others(&in_place, at), others(&dy, at));
            let mut alone = blank::<E>(dx.len());
            let to = RowsMut::strided(&mut alone, at.tokens * heads, n, n).unwrap();
            qk_norm_backward(x, dy_rows, params, Gradients { dx: Some(to), params: None }, run).unwrap();
            let dx = wide(&dx);
            same(&[wide(&copied(&in_place, at)), wide(&again)], &[dx.clone(), wide(&dweight)], "in place");
            same(&[wide(&alone)], std::slice::from_ref(&dx), "dx alone");
            vec![wide(&copied(&y, at)), dx, wide(&dweight), wide(&dbias)]
        });
        // Each head by itself, as plain rows.
        let of_head = |rows: &[E], head: usize| -> Vec<E> {
            rows.chunks(n).skip(head).step_by(heads).flatten().copied().collect()
        };
        let (x, dy) = (copied(&buffer, at), copied(&dy, at));
        for head in 0..heads {
            let [x, dy] = [of_head(&x, head), of_head(&dy, head)];
            let of = |values: &[f64]| -> Vec<f64> {
                values.chunks(n).skip(head).step_by(heads).flatten().copied().collect()
            };
            let mut params = QkParams { heads: 1, ..params };
            params.weight = Some(&weight[head * n..][..n]);
            params.bias = Some(&bias[head * n..][..n]);
            let (mut y, mut dx) = (blank::<E>(x.len()), blank::<E>(x.len()));
            let (mut dweight, mut dbias) = (blank::<E::Acc>(n), blank::<E::Acc>(n));
            let mut workspace = Workspace::new();
            let [x, dy] = [&x, &dy].map(|of| Rows::new(of, n).unwrap());
            qk_norm(x, params, RowsMut::new(&mut y, n).unwrap(), Run::default()).unwrap();
            let gradients = Gradients {
                dx: Some(RowsMut::new(&mut dx, n).unwrap()),
                params: Some(of_params(Some(&mut dweight), Some(&mut dbias), &mut workspace)),
            };
            qk_norm_backward(x, dy, params, gradients, Run::default()).unwrap();
            let part = |of: &[f64]| of[head * n..][..n].to_vec();
            let want = [wide(&y), wide(&dx), wide(&dweight), wide(&dbias)];
            same(
                &[of(&got[0]), of(&got[1]), part(&got[2]), part(&got[3])],
                &want,
                &format!("{at:?}, head {head}"),
            );
        }
    }
}

/// Layer norm and the others take heads, with statistics and all.
fn the_operators_take_heads<E: Number>() {
    let mut random = Random::new(93);
    let at = Heads { tokens: 3, heads: 2, head_dim: 40, stride: 250, offset: 80 };
    let (buffer, dy): (Vec<E>, Vec<E>) = (random.numbers(750), random.numbers(750));
    let (mut in_buffer, mut of_copy) = (buffer.clone(), copied(&buffer, at));
    let [mut rstd, mut rstd_of_copy] = [blank::<E::Acc>(6), blank::<E::Acc>(6)];
    let params = Params::<E>::default();
    rms_norm_in_place(RowsMut::heads(&mut in_buffer, at).unwrap(), params, Some(&mut rstd), Run::default())
        .unwrap();
    let to = RowsMut::new(&mut of_copy, 40).unwrap();
    rms_norm_in_place(to, params, Some(&mut rstd_of_copy), Run::default()).unwrap();
    same(&[wide(&copied(&in_buffer, at)), wide(&rstd)], &[wide(&of_copy), wide(&rstd_of_copy)], "RMS norm");
    let (x, dy_rows) = (Rows::heads(&buffer, at).unwrap(), Rows::heads(&dy, at).unwrap());
    let [mut y, mut dx] = [blank::<E>(240), blank::<E>(240)];
    l2_norm(x, 1e-12, RowsMut::new(&mut y, 40).unwrap(), None, Run::default()).unwrap();
    l2_norm_backward(x, dy_rows, 1e-12, RowsMut::new(&mut dx, 40).unwrap(), Run::default()).unwrap();
    let got = [wide(&y), wide(&dx)];
    let (x, dy) = (copied(&buffer, at), copied(&dy, at));
    let [x, dy] = [&x, &dy].map(|of| Rows::new(of, 40).unwrap());
    l2_norm(x, 1e-12, RowsMut::new(&mut y, 40).unwrap(), None, Run::default()).unwrap();
    l2_norm_backward(x, dy, 1e-12, RowsMut::new(&mut dx, 40).unwrap(), Run::default()).unwrap();
    same(&got, &[wide(&y), wide(&dx)], "L2 norm");
}

#[test]
fn gradients_are_the_slopes() {
    let mut random = Random::new(94);
    for norm in NORMS {
        let [x, dy, weight] = [24, 24, 6].map(|len| random.numbers::<f64>(len));
        let forward = |x: &[f64], weight: &[f64]| {
            let mut y = blank::<f64>(24);
            let params = QkParams { norm, heads: 2, weight: Some(weight), bias: None, eps: 0.1 };
            qk_norm(Rows::new(x, 3).unwrap(), params, RowsMut::new(&mut y, 3).unwrap(), Run::default())
                .unwrap();
            dot(&y, &dy)
        };
        let (mut dx, mut dweight, mut workspace) = (blank::<f64>(24), blank::<f64>(6), Workspace::new());
        let gradients = Gradients {
            dx: Some(RowsMut::new(&mut dx, 3).unwrap()),
            params: Some(of_params(Some(&mut dweight), None, &mut workspace)),
        };
        let params = QkParams { norm, heads: 2, weight: Some(&weight[..]), bias: None, eps: 0.1 };
        let [x_rows, dy_rows] = [&x, &dy].map(|of| Rows::new(of, 3).unwrap());
        qk_norm_backward(x_rows, dy_rows, params, gradients, Run::default()).unwrap();
        slopes(&x, &dx, |x| forward(x, &weight), "dx");
        slopes(&weight, &dweight, |weight| forward(&x, weight), "dweight");
    }
}
