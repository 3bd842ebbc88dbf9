//! The model card: README.md beside exported weights. Pure.

use crate::{Dtype, Naming};
use polestar_model::HeadKind;
use std::fmt::Write;

/// What a card says.
#[derive(Clone, Debug)]
pub struct Card {
    /// The model's name.
    pub name: String,
    /// Its head.
    pub head: HeadKind,
    /// Whose names its tensors have.
    pub naming: Naming,
    /// How its weights are stored.
    pub dtype: Dtype,
    /// Whether a line break stands between a prompt and its answer.
    pub newline: bool,
    /// Tokens of the longest sequence that it is meant for.
    pub positions: u64,
    /// Names of its split and reward tokens.
    pub tokens: [String; 2],
    /// Where it comes from: names and values.
    pub origin: Vec<(String, String)>,
    /// Held-out sets, and what the model came to on them.
    pub evaluation: Vec<(String, String)>,
    /// Scaling laws of the run that it is of: names and values.
    pub laws: Vec<(String, String)>,
    /// How rewards are distributed, if it was measured.
    pub calibration: Option<Calibration>,
}

/// Rewards of held-out answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibration {
    /// Triplets.
    pub triplets: usize,
    /// Mean and deviation over all candidates.
    pub all: Spread,
    /// Of candidates by the reference's own policy.
    pub positive: Spread,
    /// Of candidates by another policy.
    pub negative: Spread,
}

/// Mean and standard deviation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub deviation: f64,
}

impl Spread {
    /// Of some rewards; zeros of none.
    pub fn of(rewards: &[f32]) -> Spread {
        let count = rewards.len().max(1) as f64;
        let sum: f64 = rewards.iter().map(|&r| f64::from(r)).sum();
        let mean = sum / count;
        let squares = rewards.iter().map(|&r| (f64::from(r) - mean).powi(2));
        Spread {
            mean,
            deviation: (squares.sum::<f64>() / count).sqrt(),
        }
    }
}

impl Card {
    /// The text.
    pub fn text(&self) -> String {
        let mut text = String::from("---\nlibrary_name: transformers\n");
        text += match self.head {
            HeadKind::Reward => {
                "pipeline_tag: text-classification\ntags:\n- reward-model\n- polar\n---\n\n"
            }
            HeadKind::Language => "pipeline_tag: text-generation\n---\n\n",
        };
        text += &format!("# {}\n\n", self.name);
        match self.head {
            HeadKind::Reward => self.reward_model(&mut text),
            HeadKind::Language => {
                text += "A language model of Polestar: the first stage of a reward model.\n"
            }
        }
        text += "\n## Where it comes from\n\n";
        rows(&mut text, ["", ""], &self.origin);
        if !self.evaluation.is_empty() {
            text += "\n## Evaluation\n\nTriplets that it wasn't trained on: is the answer of the reference's own \
                     policy ranked above another one's?\n\n";
            rows(
                &mut text,
                ["set", "loss and accuracy (95%, by prompt)"],
                &self.evaluation,
            );
        }
        if !self.laws.is_empty() {
            text += "\n## Scaling laws\n\nHow loss on held-out prompts falls with size and compute over the trials of its run, \
                     with 95% intervals:\n\n";
            rows(&mut text, ["law", ""], &self.laws);
        }
        if self.head == HeadKind::Reward {
            self.calibrated(&mut text);
        }
        text
    }

    fn reward_model(&self, text: &mut String) {
        let [split, reward] = &self.tokens;
        let line = if self.newline { "\\n" } else { "" };
        *text += "A reward model, trained by policy discrimination (POLAR): given a prompt and a reference answer, it \
                  says how much a candidate answer looks as if it came from the reference's policy. The reward is a \
                  number without bounds; only differences for one prompt and reference mean something.\n\n";
        *text += "## How to ask it\n\nOne text holds the prompt twice, the reference and the candidate; the reward is \
                  read at its last token:\n\n";
        let _ = writeln!(
            text,
            "```python\ntext = f\"{{prompt}}{line}{{reference}}{split}{{prompt}}{line}{{candidate}}{reward}\"\n```\n"
        );
        match self.naming {
            Naming::Llama => {
                *text += "```python\nimport torch\nfrom transformers import AutoModelForSequenceClassification, AutoTokenizer\n\n\
                          tokenizer = AutoTokenizer.from_pretrained(FOLDER)\n\
                          model = AutoModelForSequenceClassification.from_pretrained(FOLDER).eval()\n\
                          with torch.no_grad():\n    \
                          reward = model(**tokenizer(text, return_tensors=\"pt\")).logits[0, 0].item()\n```\n";
            }
            Naming::InternLm2 => {
                *text += "The tensors have the names of InternLM2ForRewardModel, as lmdeploy and POLAR's own tools read \
                          them.\n";
            }
        }
        let _ = write!(
            text,
            "\nIt was trained on sequences of up to {} tokens, in which prompt, reference and candidate are tokenized \
             each by itself. A text that is tokenized as a whole may come out otherwise where they meet; to be exact, \
             send token ids. Weights are stored as {}.\n",
            self.positions, self.dtype
        );
    }

    fn calibrated(&self, text: &mut String) {
        *text += "\n## Calibration\n\n";
        let Some(calibration) = &self.calibration else {
            *text += "The distribution of its rewards was not measured; `coordinator export --calibrate 512` does.\n";
            return;
        };
        let Calibration {
            triplets,
            all,
            positive,
            negative,
        } = calibration;
        let _ = writeln!(
            text,
            "Rewards of both candidates of {triplets} held-out triplets:\n\n\
             | candidates | mean | standard deviation |\n|---|---|---|"
        );
        for (what, spread) in [
            ("all", all),
            ("of the reference's policy", positive),
            ("of another policy", negative),
        ] {
            let _ = writeln!(
                text,
                "| {what} | {:.4} | {:.4} |",
                spread.mean, spread.deviation
            );
        }
        let _ = writeln!(
            text,
            "\n(reward - {:.4}) / {:.4} has mean 0 and deviation 1 on them; vLLM does that with \
             `--pooler-config '{{\"logit_mean\": {:.4}, \"logit_sigma\": {:.4}}}'`. `calibration.jsonl` holds their token ids and \
             rewards, for whoever wants to see that another program computes the same.",
            all.mean, all.deviation, all.mean, all.deviation
        );
    }
}

fn rows(text: &mut String, head: [&str; 2], rows: &[(String, String)]) {
    let _ = writeln!(text, "| {} | {} |\n|---|---|", head[0], head[1]);
    for (name, value) in rows {
        let _ = writeln!(text, "| {name} | {value} |");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laws_are_in_the_card_where_there_are_any() {
        let mut card = Card {
            name: "one".to_owned(),
            head: HeadKind::Reward,
            naming: Naming::Llama,
            dtype: Dtype::F32,
            newline: false,
            positions: 64,
            tokens: ["<|reward|>", "[UNUSED_TOKEN_130]"].map(str::to_owned),
            origin: vec![],
            evaluation: vec![],
            laws: vec![],
            calibration: None,
        };
        assert!(!card.text().contains("Scaling laws"));
        card.laws = vec![("loss by compute".to_owned(), "L = 2 C^-0.1".to_owned())];
        assert!(card.text().contains("| loss by compute | L = 2 C^-0.1 |"));
    }
}
