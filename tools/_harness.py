# Copyright (c) dms_razor contributors. All rights reserved.
"""Tasks of lm-evaluation-harness, of local files or of its own."""
import json
import os
import sys
from pathlib import Path

from dms_razor.compat import apply


def write(path, content):
    """A file of JSON that appears whole."""
    part = path.with_suffix('.part')
    part.write_text(json.dumps(content, indent=1))
    os.replace(part, path)


class Harness:
    """Tasks of lm-evaluation-harness.

    Args:
        tokenizer: That of the networks.
        args (Namespace): ``choices`` (pairs of a name and a file), ``tasks``,
            ``limit``, ``out`` and ``batch_size``.
    """

    def __init__(self, tokenizer, args):
        apply()  # or torchvision, which it imports, may not load
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager, get_task_dict
        self.evaluate, self.wrap = simple_evaluate, HFLM
        self.tokenizer, self.args = tokenizer, args
        folder = args.out / 'tasks'
        folder.mkdir(exist_ok=True)
        for name, path in args.choices:
            # JSON is YAML.
            write(folder / f'{name}.yaml', self.task(name, Path(path)))
        self.names = [name for name, _ in args.choices] + args.tasks
        self.manager = TaskManager(
            include_path=str(folder), include_defaults=bool(args.tasks))
        found = get_task_dict(self.names, self.manager)
        scoreless = [
            str(name) for name, task in found.items()
            if 'acc' not in getattr(task, 'aggregation', dict)()
        ]
        if scoreless:
            sys.exit(f'{", ".join(scoreless)}: no share of right answers is '
                     'measured there (metric "acc"); give tasks of several '
                     'answers, and of a group its tasks')

    @staticmethod
    def task(name, path):
        """A file of JSON lines as a task."""
        with path.open() as file:
            one_context = 'choices' in json.loads(file.readline())
        # With several contexts the harness wants the answer's number as text.
        asked = dict(
            doc_to_text='{{query}}',
            doc_to_target='gold',
            doc_to_choice='choices') if one_context else dict(
                doc_to_text='gold',
                doc_to_target='continuation',
                doc_to_choice='context_options')
        return dict(
            asked,
            task=name,
            dataset_path='json',
            dataset_kwargs=dict(
                data_files=dict(validation=str(path.resolve()))),
            output_type='multiple_choice',
            validation_split='validation',
            metric_list=[
                dict(metric='acc', aggregation='mean', higher_is_better=True)
            ])

    def __call__(self, model):
        """Per cent of right answers by task."""
        wrapped = self.wrap(
            pretrained=model,
            tokenizer=self.tokenizer,
            batch_size=self.args.batch_size)
        found = self.evaluate(
            model=wrapped,
            tasks=self.names,
            task_manager=self.manager,
            limit=self.args.limit,
            verbosity='ERROR')['results']
        return {
            f'acc {name}': 100 * found[name]['acc,none']
            for name in self.names
        }
