"""What `config.eval` may hold."""

from common import config as c

DATASETS = ("cifar10", "cifar100", "imagenet2012")

RULES = {
    "eval.path": c.existing_path(),
    "eval.dataset": c.one_of("", "digits", *DATASETS),
    "eval.split": c.text(),
    "eval.batch_size": c.whole(1),
    "eval.limit": c.whole(0),
    "eval.resize": c.number(above=0, at_most=1),
}
