use super::demo::{demo_input, provisional_input, unfittable_input};
use super::*;
use crate::fits::Interval;

fn files(input: &ReportInput) -> Vec<(String, Vec<u8>)> {
    build(input).files().unwrap()
}

fn text(files: &[(String, Vec<u8>)], name: &str) -> String {
    let (_, bytes) = files.iter().find(|(file, _)| file == name).unwrap();
    String::from_utf8(bytes.clone()).unwrap()
}

/// A report whose intervals rest on few resamples, for what isn't about them.
fn quick(input: &ReportInput) -> Report {
    let bootstrap = Bootstrap {
        resamples: 50,
        ..Bootstrap::default()
    };
    build_with(
        input,
        Fitting {
            bootstrap,
            ..Fitting::default()
        },
    )
}

/// The page of such a report, and the names of its figures.
fn page_of(input: &ReportInput) -> (String, Vec<&'static str>) {
    let report = quick(input);
    let figures = figures::all(&report);
    let page = page::page(&report, &figures);
    (page, figures.iter().map(|figure| figure.name).collect())
}

/// Writes the files of every demo to `$REPORT_DEMO`, for a look at them.
fn show(name: &str, files: &[(String, Vec<u8>)]) {
    if let Some(folder) = std::env::var_os("REPORT_DEMO") {
        let folder = std::path::Path::new(&folder).join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for (file, bytes) in files {
            std::fs::write(folder.join(file), bytes).unwrap();
        }
    }
}

#[test]
fn a_complete_sweep_yields_both_laws_and_the_same_bytes_every_time() {
    let input = demo_input();
    let report = build(&input);
    for law in [report.by_params(), report.by_compute()] {
        let fit = law.fitted().unwrap();
        assert!(fit.exponent < 0.0 && fit.exponent_interval.unwrap().contains(fit.exponent));
        assert_eq!(fit.points.len(), 4);
        assert_eq!(law.selection.excluded.len(), 12);
    }
    let files = files(&input);
    show("complete", &files);
    assert_eq!(files, build(&input).files().unwrap());
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "report.html",
            "report.json",
            "points.csv",
            "loss-vs-params.svg",
            "loss-vs-params.png",
            "loss-vs-compute.svg",
            "loss-vs-compute.png",
            "valleys.svg",
            "valleys.png",
            "residuals.svg",
            "residuals.png",
            "curves.svg",
            "curves.png",
            "length.svg",
            "length.png",
            "pairs-1.svg",
            "pairs-1.png",
            "pairs-2.svg",
            "pairs-2.png",
        ]
    );
    for (name, bytes) in files.iter().filter(|(name, _)| name.ends_with(".png")) {
        let size = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!((size(16), size(20)), (2400, 1500), "{name}");
    }
    let figure = text(&files, "loss-vs-params.svg");
    assert!(figure.contains(&report.by_params().text()) && figure.contains("chance (ln 2)"));
    assert!(figure.contains("planted optimum 0.302"));
    assert!(figure.starts_with("<svg width=\"1200\" height=\"750\""));
}

#[test]
fn the_page_stands_alone_and_escapes_every_name() {
    let mut input = provisional_input();
    input.finished[0].name = "<script>alert(1)</script>".into();
    input.conventions[0].1 = "a & b \"c\"".into();
    let files = files(&input);
    let page = text(&files, "report.html");
    assert!(!page.contains("<script>alert") && !page.contains("alert(1)</script"));
    assert!(page.contains("&lt;script&gt;alert") && page.contains("\\u003cscript>alert"));
    assert!(page.contains("a &amp; b &quot;c&quot;"));
    assert!(page.contains("&lt;NaN&gt; at step 118"));
    for outside in ["src=", "href=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    // The script names SVG's namespace; nothing else looks like an address.
    assert_eq!(page.matches("http://").count(), 1);
    assert!(!page.contains("https:") && page.contains("default-src 'none'"));
}

#[test]
fn a_page_shows_each_figure_once_at_two_widths_and_stays_small() {
    let mut input = demo_input();
    // More trials, each validated more often than can be drawn.
    let curve = input.curves[3].clone();
    for again in 0..60 {
        let mut more = curve.clone();
        more.trial = format!("again-{again}");
        for point in &mut more.points {
            point.val_loss = point.train_loss;
        }
        input.curves.push(more);
    }
    let (page, figures) = page_of(&input);
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
    for name in &figures {
        assert_eq!(page.matches(&format!("id=\"{name}\"")).count(), 1, "{name}");
    }
    for width in ["wide", "narrow"] {
        let drawn = page.matches(&format!("<svg class=\"{width}\"")).count();
        assert_eq!(drawn, figures.len(), "{width}");
    }
    // What is read out is what was measured.
    let best = &input.finished[15];
    assert!(page.contains(&format!(
        "l-c3\\nN 1.57M, tokens 6.79M, C 6.4e13\\nloss {:.4}",
        best.loss
    )));
}

#[test]
fn the_page_begins_with_the_best_trial_and_what_to_do_with_it() {
    let mut input = demo_input();
    assert!(!page_of(&input).0.contains("Best trial"));
    input.best = Some(BestTrial {
        trial: "l-c3".into(),
        set: "held-out prompts".into(),
        loss: 0.3456,
        accuracy: Some(0.812),
        checkpoint: Some("s3://bucket/runs/trials/1a/checkpoints/0000000400".into()),
        next: vec![("Export".into(), "coordinator export RUN".into())],
    });
    let (page, _) = page_of(&input);
    let at = |words: &str| page.find(words).unwrap_or_else(|| panic!("no {words}"));
    let in_order = [
        "Best trial",
        "0.3456",
        "81.2% ranked",
        "checkpoints/0000000400",
        "coordinator export RUN",
        "<figure",
    ];
    assert!(in_order.windows(2).all(|two| at(two[0]) < at(two[1])));
}

#[test]
fn a_report_is_made_again_from_its_json() {
    let json = data::json(&quick(&demo_input())).unwrap();
    let mut json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    // Another one, to have it drawn again: `REPORT_INPUT` names a file with the `input` of its report.json.
    let other = std::env::var_os("REPORT_INPUT");
    if let Some(path) = &other {
        json["input"] = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    }
    let input: ReportInput = serde_json::from_value(json["input"].take()).unwrap();
    if other.is_some() {
        show("again", &files(&input));
    }
    assert!(page_of(&input).0.contains(&input.digests[0].1));
}

#[test]
fn an_unfinished_sweep_says_so_everywhere() {
    let files = files(&provisional_input());
    show("provisional", &files);
    let page = text(&files, "report.html");
    assert!(page.contains("3 of 16 trials have not finished"));
    assert!(page.contains("first half&gt; (provisional)</title>"));
    assert!(
        text(&files, "loss-vs-compute.svg")
            .contains("Provisional: 3 of 16 trials have not finished")
    );
    let json: serde_json::Value = serde_json::from_str(&text(&files, "report.json")).unwrap();
    assert_eq!(json["provisional"], true);
    let excluded = json["laws"][0]["excluded"].as_array().unwrap();
    assert!(excluded.iter().any(|out| {
        out["trial"] == "l-c0"
            && out["reason"]
                .as_str()
                .unwrap()
                .starts_with("trial failed: ")
    }));
}

#[test]
fn what_can_not_be_fitted_is_a_sentence_with_its_reason() {
    for (name, input) in [
        ("unfittable", unfittable_input()),
        ("empty", ReportInput::default()),
    ] {
        let report = build(&input);
        let files = files(&input);
        show(name, &files);
        for (law, figure) in [
            (report.by_params(), "loss-vs-params.svg"),
            (report.by_compute(), "loss-vs-compute.svg"),
        ] {
            assert!(law.fitted().is_none());
            assert!(
                law.text().contains("at least 3 different values"),
                "{}",
                law.text()
            );
            assert!(text(&files, figure).contains("No law: this law needs"));
        }
        assert!(text(&files, "report.html").contains("No law yet"));
    }
}

#[test]
fn intervals_go_by_prompts_wherever_a_score_is_printed() {
    let mut input = demo_input();
    let files_of = |input: &ReportInput| {
        let files = files(input);
        ["report.html", "report.json", "points.csv"].map(|name| text(&files, name))
    };
    let [page, json, csv] = files_of(&input);
    // Of 2,000 independent triplets the interval would be less than a third as wide.
    let row = &input.validation[0];
    let interval = row.accuracy_interval().unwrap();
    assert!(interval.hi - interval.lo > 0.05, "{interval:?}");
    let percent = |x: f64| format!("{:.1}%", 100.0 * x);
    let printed = format!("{} to {}", percent(interval.lo), percent(interval.hi));
    assert!(page.contains(&printed), "{printed}");
    assert!(page.contains("lengths are compared after cutting: "));
    assert!(page.contains("What was cut") && page.contains("512 triplets of 50 prompts"));
    assert!(page.contains("Against the best on the same triplets"));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["validation_accuracy_95"][0]["lo"], interval.lo);
    let line = csv.lines().nth(1).unwrap();
    assert!(
        line.contains(&format!(",{},{},2000,50,", interval.lo, interval.hi)),
        "{line}"
    );

    for row in &mut input.validation {
        row.prompts = Some(3);
    }
    let [page, json, csv] = files_of(&input);
    assert!(page.contains("too few prompts") && !page.contains(&printed));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(json["validation_accuracy_95"][0].is_null());
    let line = csv.lines().nth(1).unwrap();
    assert!(line.contains(",,2000,3,"), "{line}");

    for row in &mut input.validation {
        row.prompts = None;
    }
    let [page, ..] = files_of(&input);
    assert!(page.contains("prompts unknown") && page.contains("didn't count them"));
}

#[test]
fn hostile_numbers_do_not_stop_the_report() {
    let mut input = demo_input();
    input.finished[0].loss = f64::NAN;
    input.finished[1].loss = 1e9;
    input.finished[2].flops = Some(0.0);
    input.curves[3].points[5].val_loss = Some(f64::INFINITY);
    input.curves[4].points.clear();
    input.optimum = Some(0.0);
    let files = files(&input);
    for (name, bytes) in &files {
        let broken = name.ends_with(".svg") && String::from_utf8_lossy(bytes).contains("NaN");
        assert!(!broken, "{name}");
    }
    assert!(text(&files, "loss-vs-params.svg").contains("outside these axes"));
}

#[test]
fn points_csv_has_a_line_a_trial_with_its_place_in_each_law() {
    let mut input = demo_input();
    input.finished[0].name = "a, \"b\"".into();
    let csv = text(&files(&input), "points.csv");
    assert_eq!(csv.lines().count(), 17);
    assert!(csv.contains("\"a, \"\"b\"\"\",xs,24600,"));
    assert_eq!(
        csv.lines()
            .filter(|line| line.contains("in the fit"))
            .count(),
        7,
        "{csv}"
    );
}

#[test]
fn preference_benchmarks_stand_against_compute_beside_their_baselines() {
    let mut input = demo_input();
    let score = |at: usize, trial: &str| PreferenceScore {
        trial: trial.to_owned(),
        accuracy: 0.5 + 0.01 * at as f64,
        interval: (at > 0).then_some(Interval {
            lo: 0.47 + 0.01 * at as f64,
            hi: 0.53 + 0.01 * at as f64,
        }),
        without_reference: Some(0.5),
    };
    let trials = input.finished.iter().enumerate();
    let set = PreferenceSet {
        name: "judge <bench>".to_owned(),
        averaging: "all pairs alike".to_owned(),
        judgements: 350,
        prompts: 340,
        trials: trials.map(|(at, trial)| score(at, &trial.name)).collect(),
        baselines: vec![("length".to_owned(), 0.58), ("TF-IDF".to_owned(), 0.61)],
    };
    let unscored = PreferenceSet {
        name: "later".to_owned(),
        ..PreferenceSet::default()
    };
    input.preferences = vec![set, unscored];
    let files = files(&input);
    show("preference", &files);
    let figure = text(&files, "preference-1.svg");
    assert!(figure.contains("TF-IDF 0.610") && figure.contains("judge &lt;bench&gt;"));
    assert!(figure.contains("is right in 0.650 (95% 0.620 to 0.680) of 350 judgements"));
    let page = text(&files, "report.html");
    for said in [
        "Preference accuracy",
        "62.0% to 68.0%",
        "too few prompts",
        "350 judgements of 340 prompts",
        "No trial is scored on it yet",
    ] {
        assert!(page.contains(said), "{said}");
    }
    let has = |name: &str| files.iter().any(|(file, _)| file == name);
    assert!(has("preference-1.png") && !has("preference-2.svg"));
}
