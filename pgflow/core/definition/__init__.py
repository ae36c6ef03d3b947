"""What users write: steps, transitions, workflows and their options, validated when the class is created.

step, function, connector     a step as a class or a function, and the services that it calls
context, results              what a step receives and what it returns
workflow, options, input      the workflow class, its options and its typed input
graph, route                  the workflow as plain data, and targets chosen at run time
retry, unique, versions       retry policies, business keys, several versions under one name
registry                      the workflows of one app, by name
rules/                        the checks on all of them
"""
