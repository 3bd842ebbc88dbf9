use super::*;
use crate::fits::planted::Noise;

fn read(text: &str, reading: &Reading) -> Result<Table, TableError> {
    Table::read(text.as_bytes(), reading)
}

fn fitted(text: &str) -> Result<Fits, String> {
    let table = read(text, &Reading::default()).map_err(|e| e.to_string())?;
    let options = Options {
        bootstrap: Bootstrap {
            resamples: 100,
            seed: 1,
        },
        ..Options::default()
    };
    fit(&table, options).map_err(|e| e.to_string())
}

fn loss(n: f64, d: f64) -> f64 {
    1.7 + 400.0 / n.powf(0.34) + 1500.0 / d.powf(0.37)
}

/// Six sizes by six lengths, columns apart by `between`.
fn grid(header: &str, between: &str) -> String {
    let mut text = format!("{}\n", header.replace(',', between));
    for size in 0..6 {
        for length in 0..6 {
            let (n, d) = (3e7 * 3f64.powi(size), 1e9 * 3f64.powi(length));
            text += &format!("{n}{between}{d}{between}{}\n", loss(n, d));
        }
    }
    text
}

/// Nine sizes at each of five budgets, which are missed by up to `off`, N by up to `off_n`.
fn isoflop(off: f64, off_n: f64) -> String {
    let mut random = Noise::new(3);
    let mut text = String::from("C,N,loss\n");
    for budget in 0..5 {
        let c = 1e18 * 10f64.powf(f64::from(budget) / 2.0);
        for size in -4..=4 {
            let n = 1e8 * 10f64.powf(f64::from(budget) / 4.0) * 1.5f64.powi(size);
            let mut missed = |off: f64| 1.0 + off * random.normal().tanh();
            let (spent, counted) = (c * missed(off), n * missed(off_n));
            text += &format!("{spent},{counted},{}\n", loss(n, c / (6.0 * n)));
        }
    }
    text
}

#[test]
fn tables_are_read_however_columns_stand_apart_and_are_called() {
    let plain = fitted(&grid("N,D,loss", ",")).unwrap().parametric.unwrap();
    for (header, between) in [
        ("N,D,loss", ";"),
        ("N,D,loss", "\t"),
        ("N (params),D (tokens),loss", ","),
        ("Parameters,Training Tokens,final_loss", ","),
        ("num_params,total_tokens,loss_c4_val", ";"),
        ("# made by hand\nN,D,val_bpb", ","),
        ("\u{feff}N,D,loss", ","),
    ] {
        let fits = fitted(&grid(header, between)).expect(header);
        assert_eq!(fits.parametric.expect(header).law, plain.law, "{header}");
    }
    let numbers = "1,2,3\n4,5,6\n";
    assert!(
        fitted(numbers)
            .unwrap_err()
            .contains("must name the columns")
    );
    let bytes = [b'P', b'K', 0xff, 0xfe];
    let error = Table::read(&bytes[..], &Reading::default()).unwrap_err();
    assert!(error.to_string().contains("UTF-8"), "{error}");
}

#[test]
fn tables_in_utf_16_are_read_by_their_mark_or_refused_by_their_name() {
    let text = grid("N,D,loss", "\t");
    let expected = read(&text, &Reading::default()).unwrap();
    let marked = || "\u{feff}".encode_utf16().chain(text.encode_utf16());
    let little: Vec<u8> = marked().flat_map(u16::to_le_bytes).collect();
    let big: Vec<u8> = marked().flat_map(u16::to_be_bytes).collect();
    for bytes in [&little, &big] {
        let table = Table::read(&bytes[..], &Reading::default()).unwrap();
        assert_eq!(
            (table.header, table.values),
            (expected.header.clone(), expected.values.clone())
        );
    }
    let refusal = |bytes: &[u8]| {
        let refused = Table::read(bytes, &Reading::default());
        refused.unwrap_err().to_string()
    };
    // Half a unit, half a pair of surrogates, no mark.
    let cut = refusal(&little[..little.len() - 1]);
    let lone = refusal(&[&little[..], &0xd800_u16.to_le_bytes()].concat());
    assert!(cut.contains("UTF-16") && cut == lone, "{cut}\n{lone}");
    let unmarked = refusal(&little[2..]);
    assert!(unmarked.contains("byte order mark"), "{unmarked}");
}

#[test]
fn which_columns_were_taken_is_said_and_doubts_are_asked_about() {
    let table = read(
        "N,num_tokens,eval_loss,eval_loss_std,seed\n1,2,3,4,5\n",
        &Reading::default(),
    )
    .unwrap();
    let [(_, columns), (_, unused)] = &table.facts()[..] else {
        panic!("{:?}", table.facts());
    };
    assert_eq!(columns, "N is `N`, D is `num_tokens`, loss is `eval_loss`");
    assert_eq!(unused, "eval_loss_std, seed");

    for (header, says) in [
        (
            "N,D,train_loss,val_loss",
            "any of `train_loss`, `val_loss` could be loss; say which with --column loss=train_loss",
        ),
        (
            "N,D_total,D_unique,loss",
            "`D_total`, `D_unique` could be D",
        ),
        ("a,b,other", "the table has a, b, other"),
    ] {
        let row = "1,2,3,4".split_at(2 * header.split(',').count() - 1).0;
        let refusal = fitted(&format!("{header}\n{row}\n")).unwrap_err();
        assert!(refusal.contains(says), "{header}: {refusal}");
    }
    // A column that was given for one quantity isn't taken for another too.
    let given = |pairs: &[(Quantity, &str)]| Reading {
        columns: pairs
            .iter()
            .map(|(q, name)| (*q, (*name).to_owned()))
            .collect(),
        ..Reading::default()
    };
    let table = read("D,loss\n1,2\n", &given(&[(Quantity::N, "D")])).unwrap();
    assert_eq!(table.column(Quantity::D), None);
    let both = given(&[(Quantity::N, "D"), (Quantity::D, "D")]);
    let refusal = read("D,loss\n1,2\n", &both).unwrap_err().to_string();
    assert!(
        refusal.contains("`D` is given as both N and D"),
        "{refusal}"
    );
}

#[test]
fn all_bad_lines_are_named_at_once_and_missing_numbers_can_be_skipped() {
    let mut text = String::from("N,D,loss\n1e6,1e9,\"3,1\"\n1e6,1e9,3.1%\n1e6,1e9\n");
    for word in ["None", "N/A", "null", "-", "inf", "NaN", "", "-inf", "na"] {
        text += &format!("1e6,1e9,{word}\n");
    }
    let refusal = read(&text, &Reading::default()).unwrap_err().to_string();
    for says in [
        "12 cells or lines can't be read",
        "line 2: loss is `3,1`, which has a decimal comma; write 3.1",
        "line 3: loss is `3.1%`, which is a percentage",
        "line 4 has 2 fields, and the header has 3",
        "line 5: loss is `None`, which is missing",
        "and 2 more",
        "--skip-missing",
    ] {
        assert!(refusal.contains(says), "{says}\n{refusal}");
    }
    let skipping = Reading {
        skip_missing: true,
        ..Reading::default()
    };
    let missing: String = text.replace("1e6,1e9,\"3,1\"\n1e6,1e9,3.1%\n1e6,1e9\n", "1.5M,2B,3\n");
    let table = read(&missing, &skipping).unwrap();
    assert_eq!((table.skipped, table.lines.len()), (9, 1));
    assert_eq!(table.column(Quantity::N), Some(&[1.5e6][..]));
    let decimals = "N,D,loss\n1e6,1e9,3,1\n";
    let refusal = read(decimals, &Reading::default()).unwrap_err().to_string();
    assert!(
        refusal.contains("decimal commas, write points"),
        "{refusal}"
    );
}

#[test]
fn budgets_as_they_were_achieved_are_budgets() {
    let exact = fitted(&isoflop(0.0, 0.0)).unwrap();
    let exponent = |fits: &Fits| {
        let isoflop = fits.isoflop.as_ref().expect("an isoFLOP grid");
        assert_eq!((isoflop.valleys.len(), isoflop.refused.len()), (5, 0));
        isoflop.laws.fitted().unwrap().size.exponent
    };
    assert!(exact.notes.is_empty(), "{:?}", exact.notes);
    let achieved = fitted(&isoflop(0.004, 1e-6)).unwrap();
    assert!((exponent(&achieved) - exponent(&exact)).abs() < 0.01);
    let note = achieved
        .notes
        .iter()
        .find(|note| note.starts_with("C differs by"));
    assert!(note.unwrap().contains("5 budgets"), "{note:?}");
    // The page has the same budgets.
    let table = read(&isoflop(0.004, 1e-6), &Reading::default()).unwrap();
    let input = report_input("t", &table).unwrap();
    let mut budgets: Vec<f64> = input
        .finished
        .iter()
        .filter_map(|t| t.at.budget())
        .collect();
    budgets.dedup();
    assert_eq!(budgets.len(), 5);
    assert!(
        input
            .conventions
            .iter()
            .any(|(_, text)| text.starts_with("C differs by"))
    );
}

/// Rows of many models are no law of one quantity, unless that is asked for.
#[test]
fn models_of_many_sizes_are_not_taken_for_the_best_ones() {
    // Compute is nowhere the same, and no column says D.
    let loose = isoflop(0.5, 0.0);
    let refusal = fitted(&loose).unwrap_err();
    assert!(refusal.contains("no column says D"), "{refusal}");
    let names: String = loose
        .lines()
        .map(|line| format!("{}\n", line.rsplit_once(',').unwrap().0))
        .collect();
    let refusal = fitted(&names).unwrap_err();
    assert!(refusal.contains("no column says loss"), "{refusal}");
    let table = read(&loose, &Reading::default()).unwrap();
    let options = Options {
        law: LawChoice::Power,
        ..Options::default()
    };
    let asked = fit(&table, options).unwrap();
    assert_eq!(asked.power.unwrap().by, "C");
    assert!(asked.notes[0].contains("N varies too"), "{:?}", asked.notes);
    // Five budgets with two sizes each: said once, with what would help.
    let mut few = String::from("C,N,loss\n");
    for budget in 1..=5 {
        few += &format!("1e1{budget},1e6,3\n1e1{budget},2e6,2.9\n");
    }
    let refusal = fitted(&few).unwrap_err();
    assert!(
        refusal.contains("5 budgets from 1.000e11 to 1.000e15 FLOP: 2 sizes determine no curve"),
        "{refusal}"
    );
}

#[test]
fn checkpoints_of_a_run_are_recognized_and_their_run_is_drawn() {
    let mut random = Noise::new(1);
    let mut text = String::from("run,N,D,loss\n");
    for run in 0..8 {
        let (n, luck) = (3e7 * 2f64.powi(run), (0.01 * random.normal()).exp());
        for checkpoint in 0..10 {
            let d = 1e9 * 1.7f64.powi(checkpoint);
            text += &format!("r{run},{n},{d},{}\n", luck * loss(n, d));
        }
    }
    let table = |run| {
        let reading = Reading {
            run,
            ..Reading::default()
        };
        read(&text, &reading).unwrap()
    };
    let width = |table: &Table| {
        let fits = fit(table, Options::default()).unwrap();
        let alpha = fits.parametric.unwrap().intervals.alpha.unwrap();
        alpha.hi - alpha.lo
    };
    let detected = table(RunColumn::Detect);
    let facts = detected.facts();
    let (_, said) = facts.iter().find(|(name, _)| name == "Runs").unwrap();
    assert!(
        said.contains("checkpoints of 8 runs, told apart by `run`"),
        "{said}"
    );
    assert_eq!(detected.runs, table(RunColumn::Named("run".into())).runs);
    let alone = table(RunColumn::None);
    assert_eq!(alone.runs, None);
    assert!(width(&detected) > 1.5 * width(&alone));
    // A name for each row says nothing of runs.
    let named = "name,N,D,loss\na,1,1,3\nb,1,2,2.9\n";
    assert_eq!(read(named, &Reading::default()).unwrap().runs, None);
}

/// JSON says what the page says: that a law isn't determined, and why; an infinite number would become null.
#[test]
fn what_is_not_determined_is_so_in_json_and_on_the_page() {
    let mut random = Noise::new(2);
    let mut text = String::from("N,D,loss\n");
    for size in 0..3 {
        for length in 0..3 {
            let (n, d) = (5e7 * 2f64.powi(size), 1e9 * 2f64.powi(length));
            text += &format!("{n},{d},{}\n", loss(n, d) * (0.02 * random.normal()).exp());
        }
    }
    let table = read(&text, &Reading::default()).unwrap();
    let fits = fit(&table, Options::default()).unwrap();
    let json = serde_json::to_value(&fits).unwrap();
    let law = &json["parametric"];
    assert_eq!(law["determined"], false, "{law}");
    let reason = law["reason"].as_str().unwrap();
    for number in ["e", "a", "b", "alpha", "beta"] {
        assert!(law["law"][number].is_number(), "{law}");
    }
    let report = crate::report::build(&report_input("t", &table).unwrap());
    let files = report.files().unwrap();
    let page = String::from_utf8_lossy(&files[0].1).into_owned();
    assert!(page.contains("don't determine this law") && page.contains(reason));
    let sound = fitted(&grid("N,D,loss", ",")).unwrap();
    let json = serde_json::to_value(&sound).unwrap();
    assert_eq!(json["parametric"]["determined"], true);
    assert!(!json["parametric"].to_string().contains("null"));
}
