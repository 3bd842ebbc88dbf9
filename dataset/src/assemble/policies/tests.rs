use super::*;
use crate::twins::{Pair, Resemblances};

fn tally() -> Tally {
    let names = [
        "a | hot",
        "a | cold",
        "a2 | hot",
        "a2 | warm",
        "b",
        "c",
        "d",
    ];
    let policies = names.into_iter().map(|name| (name.to_owned(), (10, 5)));
    Tally {
        policies: policies.collect(),
        ..Tally::default()
    }
}

fn selected(
    named: &[&str],
    chosen: usize,
    aliases: &[&[&str]],
    tally: &Tally,
) -> Result<(Vec<Policy>, HeldOutPolicies), Error> {
    let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let aliases: Vec<_> = aliases.iter().map(|names| owned(names)).collect();
    let selection = PolicySelection {
        named: &owned(named),
        chosen,
        aliases: &aliases,
        pairs: Pairs::SamePrompt,
        seed: 1,
    };
    selection.table(tally)
}

fn table(named: &[&str], chosen: usize, aliases: &[&[&str]]) -> Result<Vec<Policy>, Error> {
    selected(named, chosen, aliases, &tally()).map(|(table, _)| table)
}

fn held(table: Vec<Policy>) -> Vec<String> {
    let held = table.into_iter().filter(|policy| policy.held_out);
    held.map(|policy| policy.name).collect()
}

#[test]
fn aliases_meet_where_their_further_columns_agree() {
    let table = table(&[], 0, &[&["a", "a2"], &["b", "c"], &["c", "d"]]).unwrap();
    let aliases: BTreeMap<&str, String> = table
        .iter()
        .map(|policy| (policy.name.as_str(), policy.aliases.join(",")))
        .collect();
    assert_eq!(aliases["a | hot"], "a2 | hot");
    assert_eq!(
        (aliases["a | cold"].as_str(), aliases["a2 | warm"].as_str()),
        ("", "")
    );
    assert_eq!(
        (aliases["b"].as_str(), aliases["d"].as_str()),
        ("c,d", "b,c")
    );
}

#[test]
fn held_out_policies_take_their_aliases_along() {
    assert_eq!(
        held(table(&["a | hot"], 0, &[&["a", "a2"]]).unwrap()),
        ["a | hot", "a2 | hot"]
    );
    assert_eq!(
        held(table(&["a"], 0, &[]).unwrap()),
        ["a | cold", "a | hot"]
    );
    assert_eq!(held(table(&["b"], 3, &[]).unwrap()).len(), 4);
    assert!(matches!(
        table(&[], 8, &[]),
        Err(Error::HeldOutPolicies {
            asked: 8,
            eligible: 7,
            twins: 0
        })
    ));
}

#[test]
fn a_pattern_holds_out_what_it_fits_and_names_the_nearest_otherwise() {
    let of = |pattern: &str| table(&[pattern], 0, &[]).map(held);
    assert_eq!(
        of("a*").unwrap(),
        ["a | cold", "a | hot", "a2 | hot", "a2 | warm"]
    );
    assert_eq!(of("* | hot").unwrap(), ["a | hot", "a2 | hot"]);
    // Of the first columns, as a name is.
    assert_eq!(of("*2").unwrap(), ["a2 | hot", "a2 | warm"]);
    assert_eq!(of("*").unwrap().len(), 7);
    for unknown in ["a3", "a3*"] {
        let told = of(unknown).unwrap_err().to_string();
        let named = format!("--heldout-policy (heldout_policies): no policy is '{unknown}'");
        assert!(told.starts_with(&named), "{told}");
        assert!(
            told.contains("'a2 | hot'") && told.contains("of 7"),
            "{told}"
        );
    }
}

/// The policies of [`tally`], where `b` and `c` are twins of each other, and so are `d` and `a | hot`.
fn twins() -> Tally {
    let tally = tally();
    let names: Vec<String> = tally.policies.keys().cloned().collect();
    let number = |name: &str| names.iter().position(|n| n == name).unwrap() as u32;
    let pair = |a: &str, b: &str, equal| Pair {
        policies: (number(a).min(number(b)), number(a).max(number(b))),
        equal,
        prompts: 20,
    };
    let found = Resemblances {
        pairs: vec![
            pair("b", "c", 9),
            pair("d", "a | hot", 12),
            pair("b", "d", 1),
        ],
        usual: 0.0,
        prompts: 20,
    };
    Tally {
        twins: crate::assemble::select::Twins { names, found },
        ..tally
    }
}

#[test]
fn the_seed_holds_out_no_policy_whose_twin_is_trained_on() {
    let all = twins();
    let (table, record) = selected(&[], 3, &[], &all).unwrap();
    assert_eq!(held(table), ["a | cold", "a2 | hot", "a2 | warm"]);
    assert!(
        record
            .policies
            .iter()
            .all(|it| it.reason == Reason::Chosen && !it.twin_trained)
    );
    // Their lots came before the last that was taken.
    for passed in &record.passed_over {
        assert!(passed.twin.share() > 0.4, "{passed:?}");
    }

    // A fourth has to be one with a twin: that one is held out as well. It is two of seven policies, so
    // an eighth and a ninth policy are needed.
    let refused = selected(&[], 4, &[], &all).unwrap_err().to_string();
    assert!(
        refused.contains("only 3 can be") && refused.contains("4 more"),
        "{refused}"
    );
    let mut more = twins();
    for name in ["e", "f"] {
        more.policies.insert(name.into(), (10, 4));
    }
    let (table, record) = selected(&[], 4, &[], &more).unwrap();
    let names = held(table);
    assert_eq!(names.len(), 5);
    let both = |a: &str, b: &str| names.iter().filter(|n| *n == a || *n == b).count();
    assert_eq!(both("b", "c") + both("d", "a | hot"), 2);
    let twins = record
        .policies
        .iter()
        .filter(|it| matches!(it.reason, Reason::TwinOf(_)));
    assert_eq!(twins.count(), 1);

    // By name everything can be had, and what that means is said.
    let (_, record) = selected(&["b"], 0, &[], &all).unwrap();
    let text = record.to_string();
    let told = "b: named; ITS TWIN IS TRAINED ON: c, the same answers to 9 of 20 prompts (45.0 %)";
    assert!(text.contains(told), "{text}");
    // Aliases are one policy, not twins.
    let (_, record) = selected(&["b"], 0, &[&["b", "c"]], &all).unwrap();
    assert!(
        record.policies.iter().all(|policy| !policy.twin_trained),
        "{record}"
    );
}
