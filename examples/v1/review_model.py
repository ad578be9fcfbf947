# ruff: noqa: PLC2401
"""A model as it was written for aipod 1.0, served by today's aipod without a change: words that tell a good review
from a bad one are counted. Everything 1.0 is in it: the model loads in __init__, progress goes to trainning_logger,
files travel as a zip in binary_data, arguments are in Chinese, and serve() at the end guards nothing."""

import base64
import json
import os

from aipod.model import AIModelBase, NotSupportedError
from aipod.package import ZipPackage
from aipod.rpc.server import serve
from aipod.trainlog import Progressor


class ReviewModel(AIModelBase):
    def __init__(self, version=None, datapath=None, **kwargs):
        super().__init__(version, datapath, **kwargs)
        # 加载已训练的词表;没有训练过时为空
        self.words = {}
        if os.path.exists(self.words_path):
            with open(self.words_path, encoding="utf-8") as f:
                self.words = json.load(f)

    @property
    def words_path(self):
        return self.model_dir() / "词表.json"

    def train(self, binary_data=None, 轮数=3, **kwargs):
        # 训练数据是一个zip包,里面有好评和差评两个文件
        package = ZipPackage(data=binary_data)
        good = package.read_file("好评.txt").decode("utf-8").split()
        bad = package.read_file("差评.txt").decode("utf-8").split()
        progressor = Progressor(轮数, start=10, end=90)
        self.trainning_logger.append(progress=10, message="开始训练", stage="准备")
        words = {}
        for i in range(轮数):
            for word in good:
                words[word] = words.get(word, 0) + 1
            for word in bad:
                words[word] = words.get(word, 0) - 1
            self.trainning_logger.append(
                progressor.calculate(i + 1), data={"轮": i + 1}, message="训练中", stage="训练"
            )
        with open(self.words_path, "w", encoding="utf-8") as f:
            json.dump(words, f, ensure_ascii=False)
        self.trainning_logger.append(100, message="训练完成", stage="完成", status="finished")
        return {"词数": len(words)}

    def predict(self, binary_data=None, 操作="分类", 文本="", **kwargs):
        if 操作 == "分类":
            # 文本可以放在参数里,也可以放在binary_data里
            text = 文本 or binary_data.decode("utf-8")
            score = sum(self.words.get(word, 0) for word in text.split())
            return {"分数": score, "标签": "好评" if score >= 0 else "差评", "语言": self.model_info.get("语言")}
        if 操作 == "导出":
            # 导出为zip包;JSON里只能放文本,所以用base64编码
            package = ZipPackage(mode="w")
            package.write_file("词表.json", self.words_path)
            package.write_file("说明.txt", data="版本 " + self.version)
            return {"zip": base64.b64encode(package.close()).decode("ascii")}
        raise NotSupportedError()


serve(ReviewModel)
# 服务停止以后才会执行到这里
print("服务已停止", flush=True)
