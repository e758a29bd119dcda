//! Standardise a table of measurements: `cargo run --release -p layernorm-ndarray --example features -- [FILE.csv]`.
//!
//! By default down the columns, so that each feature has mean 0 and spread 1, as most methods of machine learning want it;
//! with `--rows` along the rows, as layer norm does in a network. The memory is the same: only the axis differs.

use layernorm_ndarray::{Error, Norm, layer_norm_in_place, rms_norm_in_place};
use ndarray::{Array2, ArrayView1, Axis};
use std::fmt::Write as _;
use std::io::Write as _;

const USAGE: &str = "usage: features [FILE.csv] [--rows] [--rms] [--out FILE]

FILE.csv   a table with a line of names and then numbers, separated by commas; without it, one of ten planets and moons
--rows     along the rows; without it, down the columns
--rms      divide by the root mean square, and leave the mean where it is
--out FILE write the result as a table like the input";

/// Planets and moons: features whose sizes have nothing to do with each other.
const TABLE: &str = "\
radius_km,density_kg_m3,gravity_m_s2,day_h,distance_sun_mkm,temperature_k
2439.7,5429,3.70,4222.6,57.9,440
6051.8,5243,8.87,2802.0,108.2,737
6378.1,5514,9.80,24.0,149.6,288
1737.4,3344,1.62,708.7,149.6,250
3396.2,3934,3.71,24.7,228.0,208
71492,1326,24.79,9.9,778.5,163
2634.1,1936,1.43,171.7,778.5,110
60268,687,10.44,10.7,1432.0,133
25559,1270,8.87,17.2,2867.0,78
24764,1638,11.15,16.1,4515.0,73
";

struct Arguments {
    file: Option<String>,
    out: Option<String>,
    rows: bool,
    rms: bool,
}

fn arguments() -> Result<Arguments, String> {
    let mut arguments = Arguments { file: None, out: None, rows: false, rms: false };
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--rows" => arguments.rows = true,
            "--rms" => arguments.rms = true,
            "--out" => arguments.out = Some(given.next().ok_or("--out needs a file")?),
            "--help" | "-h" => return Err(USAGE.to_owned()),
            option if option.starts_with('-') => return Err(format!("unknown option {option}\n{USAGE}")),
            file if arguments.file.is_none() => arguments.file = Some(file.to_owned()),
            _ => return Err(format!("one table at a time\n{USAGE}")),
        }
    }
    Ok(arguments)
}

/// The names of the columns, and the numbers.
fn parse(text: &str) -> Result<(Vec<String>, Array2<f64>), String> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let cells = |line: &str| line.split(',').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let (_, names) = lines.next().ok_or("the table is empty")?;
    let names = cells(names);
    let mut numbers = Vec::new();
    for (index, line) in lines {
        let row = cells(line);
        let line = index + 1;
        if row.len() != names.len() {
            return Err(format!("line {line} has {} numbers, the first {} names", row.len(), names.len()));
        }
        for (cell, name) in row.iter().zip(&names) {
            numbers.push(cell.parse().map_err(|_| format!("line {line}, {name}: {cell:?} is no number"))?);
        }
    }
    let shape = (numbers.len() / names.len(), names.len());
    let table = Array2::from_shape_vec(shape, numbers).map_err(|error| error.to_string())?;
    Ok((names, table))
}

/// Mean, standard deviation, least and greatest.
fn summary(numbers: ArrayView1<'_, f64>) -> [f64; 4] {
    let mean = numbers.mean().unwrap_or(f64::NAN);
    let [least, greatest] =
        [numbers.fold(f64::INFINITY, |a, b| a.min(*b)), numbers.fold(f64::NEG_INFINITY, |a, b| a.max(*b))];
    [mean, numbers.std(0.0), least, greatest]
}

fn show(title: &str, names: &[String], table: &Array2<f64>, along: Axis) {
    // Lanes along the axis that is normalised; each has a name.
    println!("{title}\n{:>18} {:>12} {:>12} {:>12} {:>12}", "", "mean", "spread", "least", "greatest");
    const SHOWN: usize = 12;
    let lanes = table.lanes(along).into_iter();
    let more = lanes.len().saturating_sub(SHOWN);
    for (index, lane) in lanes.enumerate().take(SHOWN) {
        let name = if along == Axis(0) { names[index].clone() } else { format!("row {}", index + 1) };
        // What is shown as 0 is to have no sign.
        let shown = |number: f64| if number.abs() < 5e-5 { 0.0 } else { number };
        let [mean, spread, least, greatest] = summary(lane).map(shown);
        println!("{name:>18} {mean:>12.4} {spread:>12.4} {least:>12.4} {greatest:>12.4}");
    }
    if more > 0 {
        println!("{:>18}", format!("and {more} more"));
    }
    println!();
}

fn standardise(table: &mut Array2<f64>, along: Axis, rms: bool) -> Result<(), Error> {
    // A column of a constant becomes 0 even without an epsilon.
    let norm = Norm::<f64>::over(along).with_eps(0.0);
    if rms {
        rms_norm_in_place(table.view_mut(), norm, None, Default::default())
    } else {
        layer_norm_in_place(table.view_mut(), norm, None, Default::default())
    }
}

fn run() -> Result<(), String> {
    let Arguments { file, out, rows, rms } = arguments()?;
    let text = match &file {
        Some(file) => std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?,
        None => TABLE.to_owned(),
    };
    let (names, mut table) = parse(&text)?;
    let along = Axis(usize::from(rows));
    let of = if rows { "rows" } else { "columns" };
    println!("{} rows of {} features\n", table.nrows(), table.ncols());
    show(&format!("The {of} before"), &names, &table, along);
    standardise(&mut table, along, rms).map_err(|error| error.to_string())?;
    show(&format!("The {of} after {} norm", if rms { "RMS" } else { "layer" }), &names, &table, along);
    if let Some(out) = out {
        let mut text = names.join(",") + "\n";
        for row in table.rows() {
            let cells: Vec<String> = row.iter().map(f64::to_string).collect();
            writeln!(text, "{}", cells.join(",")).map_err(|error| error.to_string())?;
        }
        std::fs::File::create(&out)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| format!("{out}: {error}"))?;
        println!("written to {out}");
    }
    Ok(())
}

fn main() -> std::process::ExitCode {
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            std::process::ExitCode::from(2)
        }
    }
}
