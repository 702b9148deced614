"""vigorl-nano: the embedded vision-language model, from its architecture to its weights."""
