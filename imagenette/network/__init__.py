"""The networks, and the form in which they are saved.

Owns the modules (`models`, `norm`), the model folder that MLflow loads (`export`, `pyfunc`) and the test
pictures that travel with it (`self_test`). Never imports training, tracking or study.
"""
