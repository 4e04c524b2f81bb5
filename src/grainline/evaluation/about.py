"""Each figure in words, with its unit: what stands beside it in ``facts.json`` and on a page."""

from __future__ import annotations

import re

ABOUT = {
    "rows": "held-out rows that were measured",
    "rewards/accuracies": "share of pairs whose chosen answer has the larger implied reward; a tie counts one half",
    "rewards/margins": "mean implied reward of chosen minus rejected; nats times beta",
    "rewards/chosen": "mean implied reward of chosen answers; nats times beta",
    "rewards/rejected": "mean implied reward of rejected answers; nats times beta",
    "rewards/desirable": "mean implied reward of answers labelled desirable; nats times beta",
    "rewards/undesirable": "mean implied reward of answers labelled undesirable; nats times beta",
    "rewards/*/accuracies": "the same share in one aspect, over pairs whose answers differ in it",
    "rewards/*/margins": "mean implied reward of the better answer minus the other in one aspect; nats times beta",
    "likelihood/accuracies": "share of pairs whose chosen answer has the larger mean log-prob a token",
    "logps/chosen": "mean log-prob of chosen answers; nats an answer",
    "logps/rejected": "mean log-prob of rejected answers; nats an answer",
    "logps/chosen_per_token": "mean log-prob a token of chosen answers; nats",
    "logps/answer": "mean log-prob of the answers; nats an answer",
    "logps/answer_per_token": "mean log-prob a token of the answers; nats",
    "calibration/ece": "mean distance of confidence and accuracy over ten bins; 0 is best",
    "calibration/brier": "mean square of the probability given to the rejected answer; 0 is best, a coin gets 0.25",
    "length/prefers_longer": "share of pairs of unequal length whose longer answer has more reward",
    "length/longer_is_chosen": "share of pairs of unequal length whose longer answer is the chosen one",
    "length/accuracy_controlled": "accuracy at equal length, by a logistic regression",
    "length/accuracy_matched": "accuracy over pairs whose lengths differ by a tenth at most",
    "length/matched_rows": "pairs whose lengths differ by a tenth at most",
    "length/accuracy_chosen_longer": "accuracy where the chosen answer is the longer one",
    "length/accuracy_chosen_shorter": "accuracy where the chosen answer is the shorter one",
    "length/margin_per_token": "what one more token of the chosen answer adds to the margin; nats times beta",
    "against_reference/likelihood": "likelihood accuracy less the reference's, on the same pairs",
    "against/rows": "rows that both runs were measured on",
    "against/rewards/accuracies": "accuracy less the other run's, on the same pairs",
    "against/rewards/margins": "margin less the other run's, on the same pairs; nats times beta",
    "against/likelihood/accuracies": "likelihood accuracy less the other run's, on the same pairs",
    "displacement/*": "mean change of the answers' log-prob since the start; nats an answer",
    "displacement/*_per_token": "mean change of the answers' log-prob a token since the start; nats",
    "displacement/chosen_falls": "share of chosen answers that have become less likely",
    "displacement/both_fall": "share of pairs both of whose answers have become less likely",
    "displacement/first_*": "share of the whole margin that the answers' first so many tokens make",
    "kl/*_per_token": "mean KL(reference || policy) a token, over the whole vocabulary; nats",
    "kl/chosen": "mean over pairs of the sum of KL(reference || policy) along the chosen answer; nats",
    "kl/rejected": "mean over pairs of the sum of KL(reference || policy) along the rejected answer; nats",
    "masks/*/zeros": "share of answer tokens whose learned mask is 0",
    "masks/*/mean": "mean of the learned mask over answer tokens",
    "generation/prompts": "prompts that were answered",
    "generation/*/tokens": "mean length of the answers; tokens",
    "generation/*/ended": "share of answers that ended by themselves before max_new_tokens",
    "generation/*/distinct_*": "different n-grams of words over all n-grams, in all answers together",
    "generation/*/self_bleu": "mean BLEU-4 of each answer against all others, 0 to 100: the lower the more diverse",
    "generation/*/repetition": "mean share of an answer's 4-grams of words that it has said before",
    "generation/*/embedding": "mean cosine distance of two answers, by the base's final states or a sentence model",
    "generation/kl": "mean KL(policy || reference) along the policy's own answers, exact at each token; nats an answer",
    "generation/k1": "the same, estimated by the log-ratio (k1); nats an answer",
    "generation/k3": "the same, estimated by r - 1 - log r (k3); nats an answer",
    "generation/win_rate": "mean chance that the policy's answer is the better one, a tie one half, by the judge",
    "generation/win_rate_controlled": "the same at equal length, by AlpacaEval 2's logistic regression",
    "generation/ties": "share of duels that the judge did not decide",
    "generation/agreement": "share of duels that the judge decides alike in both orders",
    "generation/score/*": "mean score of the answers by the reward; its own scale",
    "geometry/energy": "hyperspherical energy of the neurons relative to before; 0 is unchanged",
    "geometry/change": "Frobenius norm of the change relative to the weight's",
    "geometry/angle": "root mean square angle between each neuron and itself before; radians",
    "geometry/spectrum": "L2 distance of the singular values relative to their norm before",
    "geometry/matrices": "matrices that the adapter changes",
    "forgetting/perplexity_before": "perplexity of the neutral text before training",
    "forgetting/perplexity": "perplexity of the neutral text",
    "forgetting/change": "mean rise of the neutral text's negative log-prob since the start; nats a token",
    "forgetting/bits_per_byte": "negative log-prob of the neutral text; bits a byte, comparable between tokenizers",
    "forgetting/tasks/*": "score of the task; its own unit",
    "forgetting/tasks/*_before": "score of the task before training; its own unit",
    "control/*/error": "mean distance of the obtained level from the requested one; the reward's scale",
    "control/*/slope": "how much the obtained level rises for each level that is requested; 1 is perfect control",
    "control/*/rank": "Spearman's rank correlation of requested and obtained level",
    "documents/accuracy": "accuracy over all places of the relevant document",
    "documents/fluctuation": "standard deviation of the accuracy over the places of the relevant document",
    "documents/range": "largest less smallest accuracy over the places of the relevant document",
    "documents/consistent": "share of rows that are judged alike at every place",
}
"""A ``*`` stands for one part of a name."""

_PATTERNS = {name: re.compile(re.escape(name).replace(r"\*", "[^/]+")) for name in ABOUT}


def about(name: str) -> str:
    """What the figure ``name`` means, empty for one that an objective adds of its own."""
    if name in ABOUT:
        return ABOUT[name]
    fits = [pattern for pattern, regex in _PATTERNS.items() if regex.fullmatch(name)]
    return ABOUT[max(fits, key=len)] if fits else ""
